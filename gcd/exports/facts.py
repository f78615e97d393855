"""What the records say of an exported row. Nothing here is computed but hashes and token counts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcd.core.errors import UserError
from gcd.core.failures import read_failure
from gcd.core.records import FULL_PROMPT, PseudoConversation, read_json, read_records
from gcd.data import prompt_file, pseudo_files, pseudo_folder, read_prompt

SCORES, PROBES = Path("reports/scores.json"), Path("reports/probe_scores.json")
# Of `make internalize` alone, whose task has no score: how near its rows come to the teacher.
FIDELITY = Path("reports/fidelity.json")
COMPARED = (FULL_PROMPT, "no_prompt")  # the rows that a row stands between


@dataclass(frozen=True)
class Facts:
    """The records of one row of one task.

    Attributes:
        data: {file of pseudo data: {"kept": n, "rejected": {reason: n}}}.
        examples: {term of the loss: {"examples": n, "labels": n, "weights": …}}.
        metrics: {metric: {row: estimate}} of the row and of COMPARED, in the order of the files.
        sources: the files of the metrics.
        opening: the first user turn of a conversation that the row was trained on.
    """

    task: str
    row: str
    adapter: Path
    lora: dict[str, Any]
    prompt_sha256: str
    data: dict[str, Any]
    examples: dict[str, Any]
    metrics: dict[str, dict[str, dict[str, float]]]
    sources: list[Path]
    opening: str


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_adapter(task: str, row: str) -> Path:
    """The folder of the row's LoRA adapter.

    Raises:
        UserError: the row failed, or has no LoRA adapter of its own.
    """
    reason = read_failure(Path("models", task, row))
    if reason is not None:
        raise UserError(f"Row {row} of {task} failed, so there is nothing to export: {reason}")
    adapter = Path("models", task, row, "adapter")
    kind = None
    if (adapter / "adapter_config.json").is_file():
        kind = read_json(adapter / "adapter_config.json")["peft_type"]
    if kind == "LORA" and (adapter / "adapter_model.safetensors").is_file():
        return adapter
    found = sorted(path.parent.parent for path in Path("models").glob("*/*/adapter/*.safetensors"))
    cells = ", ".join(f"{path.parent.name} {path.name}" for path in found) or "none"
    raise UserError(
        f"{adapter}: expected a LoRA adapter in peft's format, found "
        f"{f'one of {kind}' if kind else 'none'}. Run `dvc repro`, or choose a task and a row that "
        f"have one: {cells}."
    )


def _read_metrics(
    task: str, row: str, sources: list[Path]
) -> dict[str, dict[str, dict[str, float]]]:
    """What `sources` say of the row, and of COMPARED beside it; empty where they say nothing."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in sources:
        rows = read_json(path).get(task, {}) if path.exists() else {}
        for metric in rows.get(row, {}):
            found[metric] = {
                name: rows[name][metric]
                for name in (row, *COMPARED)
                if metric in rows.get(name, {})
            }
    return found


def read_facts(task: str, row: str) -> Facts:
    """All that the records say of a trained row.

    Raises:
        UserError: it has no LoRA adapter, or a file of its data or training is missing or bad.
    """
    adapter = find_adapter(task, row)
    read_prompt(task)  # complains of a missing or bad file
    conversations = read_records(pseudo_files(task)[2], PseudoConversation)
    if not conversations:
        raise UserError(f"{pseudo_files(task)[2]}: holds no conversation. Run `dvc repro`.")
    sources = [FIDELITY if FIDELITY.exists() else SCORES, PROBES]
    counts = sorted(pseudo_folder(task).glob("*_counts.json"))
    return Facts(
        task=task,
        row=row,
        adapter=adapter,
        lora=read_json(adapter / "adapter_config.json"),
        prompt_sha256=sha256(prompt_file(task)),
        data={path.name.removesuffix("_counts.json"): read_json(path) for path in counts},
        examples=read_json(adapter.parent / "examples.json"),
        metrics=_read_metrics(task, row, sources),
        sources=sources,
        opening=conversations[0].messages[0].content,
    )
