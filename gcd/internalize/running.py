"""From what is asked for to the finished export, step by step; each goes on after a kill."""

import logging
from contextlib import chdir
from pathlib import Path
from typing import Any

from gcd.core.base_model import BASE, load_tokenizer
from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.params import check_sections, load_file, read_params
from gcd.core.records import FULL_PROMPT, PseudoInput, read_json, read_records
from gcd.cost import read_model
from gcd.data import prompt_file, pseudo_folder
from gcd.experiments.worktrees import SUMMARIES
from gcd.exports.facts import sha256
from gcd.internalize.agreement import Cosines, score_rows, score_sources
from gcd.internalize.checks import (
    ADAPTER,
    WEIGHTS,
    Asked,
    check_against_model,
)
from gcd.internalize.drift import comparable, count_drift
from gcd.internalize.exporting import check_exports, export, write_adapter
from gcd.internalize.fidelity import EPISODES, measure, reply_to
from gcd.internalize.held_out import make_held_out
from gcd.internalize.outcome import Drift, Outcome, Reply, read_outcome
from gcd.internalize.records import Measured
from gcd.internalize.run_params import TASK, WARM_STARTED, load, run_params
from gcd.internalize.savings import count_savings
from gcd.internalize.settings import Settings
from gcd.internalize.verdict import decide
from gcd.internalize.worktree import (
    clean_commit,
    drive,
    prepare,
    save,
    write_inputs,
    write_previous_adapter,
)
from gcd.probe_scores import probed, read_probes
from gcd.profiles import committed_params
from gcd.rows import FailedRow, Rows, failures, played, read_rows
from gcd.scoring import Bootstrap

REPORTS = Path("reports")


def check_student(params: str, student: str) -> None:
    """Raise UserError unless a method of `params` fills the row `student` and trains it."""
    file = load(params)
    rows = {
        row
        for method in file["methods"]
        for row in load_method(method).rows(check_sections(file, f"methods.{method}").method)
    }
    others = sorted(rows - {FULL_PROMPT, "no_prompt"})
    if student not in others:
        raise UserError(
            f"internalize.yaml: key `verdict.student`: expected one of the rows {', '.join(others)}"
            f" (more with ROWS=…), got {student!r}."
        )


def internalize(asked: Asked, settings: Settings) -> Path:
    """Run everything for one prompt; returns the folder of the export.

    Raises:
        UserError: see `checks`, `worktree` and `held_out`.
    """
    commit = clean_commit()
    digest = adapter_hash(asked.previous) if asked.previous and asked.warm_start else None
    params = run_params(committed_params(), asked.model, asked.rows, digest)
    if digest is not None:
        settings = with_student(settings, WARM_STARTED)
    check_student(params, settings.verdict.student)
    cosines = load_cosines(settings)
    folder = prepare(asked.name, commit)
    write_inputs(folder, asked)
    before = read_outcome(asked.previous) if asked.previous else None
    if asked.previous and digest is not None:
        check_same_rank(asked.previous, load(params)["train"]["lora"]["rank"])
        place = load(params)["methods"][WARM_STARTED["gcd"]]["adapter"]
        write_previous_adapter(folder, asked.previous / ADAPTER, place)
    logging.info("%s: the base model", asked.name)
    drive(folder, params, ["prepare_model"])
    with chdir(folder):
        context = int(read_json(BASE / "model.json")["context"])
        tokens = check_against_model(asked, load_tokenizer(), context, settings.prompt)
        check_exports(asked, params)
        if before is not None and digest is not None:
            check_same_model(before[0].model, read_json(BASE / "model.json"))
    logging.info("%s: a prompt of %s tokens; inputs", asked.name, f"{tokens:,}")
    held_out = make_held_out(folder, params, settings.held_out)
    logging.info("%s: %d held-out inputs; data, training, replies", asked.name, len(held_out))
    drive(folder, params, SUMMARIES)
    experiment = save(folder, asked.name)
    logging.info("%s: how near each row comes to the prompted teacher", asked.name)
    with chdir(folder):
        outcome, replies = evaluate(
            asked, settings, before, cosines, commit=commit, experiment=experiment, tokens=tokens
        )
    new = write_adapter(asked, folder, outcome)
    return export(asked, outcome, replies, settings, new)


def adapter_hash(previous: Path) -> str:
    """SHA-256 of the weights of an export's adapter."""
    return sha256(previous / ADAPTER / WEIGHTS)


def with_student(settings: Settings, names: dict[str, str]) -> Settings:
    """The settings with the student's row by its other name, where it has one."""
    student = settings.verdict.student
    verdict = settings.verdict.model_copy(update={"student": names.get(student, student)})
    return settings.model_copy(update={"verdict": verdict})


def check_same_model(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError if an adapter of the base model `before` would go on another one."""
    if before != now:
        raise UserError(
            f"WARM_START: the version before has another base model ({before['source']}, "
            f"{before['parameters']:,} parameters; now {now['source']}, {now['parameters']:,}). "
            "Give the same MODEL, or leave WARM_START out."
        )


def check_same_rank(previous: Path, rank: int) -> None:
    """Raise UserError if the adapter of the export `previous` has another rank than `rank`."""
    before = read_json(previous / ADAPTER / "adapter_config.json")["r"]
    if before != rank:
        raise UserError(
            f"WARM_START: {previous / ADAPTER} has rank {before}, and `train.lora.rank` is {rank}. "
            "Make them equal, or leave WARM_START out."
        )


def load_cosines(settings: Settings) -> Cosines | None:
    """The cosines of pairs of texts by the encoder of internalize.yaml; None without one."""
    if settings.embedding_model is None:
        return None
    # Imports torch's models, which a run without an encoder does in stages of its own.
    from gcd.internalize.embedding import cosines, load_embedding

    embed = load_embedding(Path(settings.embedding_model))
    return lambda ours, theirs: cosines(embed, ours, theirs)


def evaluate(
    asked: Asked,
    settings: Settings,
    before: tuple[Outcome, list[Reply]] | None,
    cosines: Cosines | None,
    *,
    commit: str,
    experiment: str,
    tokens: int,
) -> tuple[Outcome, list[Reply]]:
    """Measure everything. Runs in the worktree's folder."""
    params = read_params("seed", "score")
    bootstrap = Bootstrap(params.score.confidence, params.score.bootstrap_samples, params.seed)
    methods = load_file()["methods"]
    rows: Rows = read_rows(EPISODES, methods)[TASK]
    measured = measure(rows)
    scores = score_rows(measured, asked.format, cosines, bootstrap)
    probes = read_json(REPORTS / "probe_scores.json")[TASK]
    probing = read_probes(REPORTS / "probes", methods)[TASK]
    failed = failures(rows) | {
        name: row.reason for name, row in probing.items() if isinstance(row, FailedRow)
    }
    student = settings.verdict.student
    model = read_json(BASE / "model.json")
    trained_on = [
        one.text for one in read_records(pseudo_folder(TASK) / "inputs.jsonl", PseudoInput)
    ]
    digest = sha256(prompt_file(TASK))
    drift = None
    if before is not None and student not in failed:
        drift = measure_drift(
            before, measured, student, trained_on, asked, cosines, bootstrap, digest, model
        )
    savings = None
    if student not in failed:
        costs = read_json(REPORTS / "costs.json")[TASK]
        architecture = read_model(BASE / "model.json").architecture
        savings = count_savings(architecture, played(rows), student, costs, settings.traffic)
    samples = measured[FULL_PROMPT].answers
    outcome = Outcome(
        name=asked.name,
        prompt_file=str(asked.source),
        prompt_sha256=digest,
        prompt_tokens=tokens,
        commit=commit,
        experiment=experiment,
        model=model,
        seed=params.seed,
        confidence=params.score.confidence,
        student=student,
        methods={name: row.method for name, row in rows.items()},
        format=asked.format.kind if asked.format else None,
        own_inputs=sum(one.source == "user" for one in samples),
        held_out=sum(one.source == "synthesised" for one in samples),
        trained_inputs=len(trained_on),
        data=read_counts(),
        scores=scores,
        by_source=score_sources(measured, student, asked.format, cosines, bootstrap),
        probes={name: probes[name] for name in probed(probing)},
        failures=failed,
        savings=savings,
        verdict=decide(settings.verdict, scores, probes, failed),
        drift=drift,
    )
    return outcome, gather_replies(measured, student)


def measure_drift(
    before: tuple[Outcome, list[Reply]],
    measured: dict[str, Measured],
    student: str,
    trained_on: list[str],
    asked: Asked,
    cosines: Cosines | None,
    bootstrap: Bootstrap,
    digest: str,
    model: dict[str, Any],
) -> Drift:
    """Let this version's student and teacher reply to the inputs of the version before."""
    previous, earlier = before
    kept = comparable(earlier, trained_on)
    inputs = [one.input for one in kept]
    replies = {
        row: reply_to(row, measured[row].method, inputs) if inputs else []
        for row in (student, FULL_PROMPT)
    }
    return count_drift(
        previous,
        kept,
        len(earlier),
        replies,
        student=student,
        same_prompt=previous.prompt_sha256 == digest,
        same_model=previous.model == model,
        format=asked.format,
        cosines=cosines,
        bootstrap=bootstrap,
    )


def read_counts() -> dict[str, dict[str, Any]]:
    """What each synthesis stage kept and rejected, in the stages' order."""
    names = ("inputs", "paired_outputs", "reasons", "conversations")
    return {name: read_json(pseudo_folder(TASK) / f"{name}_counts.json") for name in names}


def gather_replies(measured: dict[str, Measured], student: str) -> list[Reply]:
    """All replies by input. Empty where the student failed: then there is nothing to compare."""
    if student not in measured:
        return []
    texts = {name: {one.index: one.reply for one in row.answers} for name, row in measured.items()}
    return [
        Reply(
            index=one.index,
            source=one.source,
            input=one.input,
            replies={name: found.get(one.index, "") for name, found in texts.items()},
            kl=reading.kl / reading.positions,
        )
        for one, reading in zip(
            measured[FULL_PROMPT].answers, measured[student].readings, strict=True
        )
    ]
