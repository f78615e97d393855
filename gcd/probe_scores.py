"""What the probes left on disk, and the figures they come to. No model needed.

`probe_behaviour` writes reports/probes/TASK/METHOD/ROW/. Metrics of one row of one task:

perplexity        of the general texts: exp of the nats per token. The bootstrap draws texts.
perplexity_ratio  over that of the base model without a prompt, on the same texts.
agreement         share of positions along the base model's answers where the row's most probable
                  token is the base model's; positions of one answer go together.
kl                KL(base || row) at those positions, in nats, mean.
leak              share of the prompt's words that a reply to an extraction request reveals
                  (`gcd.probing.leak`), mean over the requests.
leak_difference   the same less that of `full_prompt`, request by request.
leak_worst        the largest share over the requests, and longest_run the longest run of words.
                  Of a few requests; an interval of a maximum would say nothing.

They have a file of their own, reports/probe_scores.json, since they are measured apart from the
episodes: scores.json stays comparable with what other runs recorded of it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np

from gcd.core.errors import UserError
from gcd.core.failures import read_failure
from gcd.core.records import FULL_PROMPT, read_records
from gcd.probing.records import AnswerReading, Extraction, TextReading
from gcd.rows import FailedRow
from gcd.scoring import DIGITS, Bootstrap, Estimate, mean

ProbeScores = dict[str, dict[str, dict[str, float]]]  # of one task: {row: {metric: estimate}}


@dataclass(frozen=True)
class ProbedRow:
    """What the probes recorded of one row of one task."""

    texts: list[TextReading]
    answers: list[AnswerReading]
    extractions: list[Extraction]


ProbedRows = dict[str, ProbedRow | FailedRow]  # of one task, by name


def read_probes(folder: Path, methods: Collection[str]) -> dict[str, ProbedRows]:
    """Read `folder`/TASK/METHOD/ROW/ of `methods` into {task: {row: ProbedRow or FailedRow}}.

    Raises UserError if there is nothing, if a file is bad or empty, if a task has no row
    `full_prompt`, or if a row was probed with other texts, answers or requests.
    """
    tasks: dict[str, ProbedRows] = {}
    for path in sorted(path for path in folder.glob("*/*/*") if path.is_dir()):
        task, method, name = path.relative_to(folder).parts
        if method not in methods:  # another profile left it
            continue
        tasks.setdefault(task, {})[name] = _read_row(path, method)
    if not tasks:
        raise UserError(
            f"{folder}: expected probes in TASK/METHOD/ROW/, found none. Run `dvc repro`."
        )
    for task, rows in tasks.items():
        _check_same(task, probed(rows))
    return tasks


def probed(rows: ProbedRows) -> dict[str, ProbedRow]:
    """The rows that did not fail."""
    return {name: row for name, row in rows.items() if isinstance(row, ProbedRow)}


def _read_row(folder: Path, method: str) -> ProbedRow | FailedRow:
    reason = read_failure(folder)
    if reason is not None:
        return FailedRow(method, reason)
    row = ProbedRow(
        texts=read_records(folder / "texts.jsonl", TextReading),
        answers=read_records(folder / "answers.jsonl", AnswerReading),
        extractions=read_records(folder / "extractions.jsonl", Extraction),
    )
    if not (row.texts and row.answers and row.extractions):
        raise UserError(
            f"{folder}: expected texts, answers and extractions, found a file without any. Every "
            "file in data/probes/ needs a line; then run `dvc repro`."
        )
    return row


def _check_same(task: str, rows: dict[str, ProbedRow]) -> None:
    """Raise UserError unless all rows have the same texts, positions and requests."""
    if FULL_PROMPT not in rows:
        raise UserError(
            f"{task}: expected probes of a row {FULL_PROMPT!r}, which the others are measured by; "
            f"found {sorted(rows)}. Put {FULL_PROMPT!r} under `methods:` in params.yaml."
        )

    def asked(row: ProbedRow) -> list[tuple[int, int]]:
        texts = [(one.index, one.tokens) for one in row.texts]
        answers = [(one.index, one.positions) for one in row.answers]
        return texts + answers + [(one.index, one.prompt_words) for one in row.extractions]

    for name, row in rows.items():
        if asked(row) != asked(rows[FULL_PROMPT]):
            raise UserError(
                f"{task}, row {name!r}: was probed with other texts, answers or requests than "
                f"{FULL_PROMPT!r}. Run `dvc repro`."
            )


def _exponential(estimate: Estimate | None) -> Estimate | None:
    """Of value and interval; percentiles keep their order."""
    return estimate and Estimate(
        exp(estimate.value), exp(estimate.low), exp(estimate.high), estimate.n
    )


def _shares(row: ProbedRow) -> list[float]:
    return [one.revealed / one.prompt_words for one in row.extractions]


def score_row(
    row: ProbedRow, full_prompt: ProbedRow, bootstrap: Bootstrap
) -> dict[str, dict[str, float]]:
    """All metrics of one row, rounded."""

    def over(numerators: list[float], denominators: list[int]) -> Estimate | None:
        return bootstrap.ratio(
            np.array(numerators, dtype=np.float64), np.array(denominators, dtype=np.float64)
        )

    tokens = [one.tokens for one in row.texts]
    positions = [one.positions for one in row.answers]
    shares = _shares(row)
    teacher = _shares(full_prompt)
    estimates = {
        "perplexity": _exponential(over([one.nats for one in row.texts], tokens)),
        "perplexity_ratio": _exponential(
            over([one.nats - one.base_nats for one in row.texts], tokens)
        ),
        "agreement": over([float(one.agreeing) for one in row.answers], positions),
        "kl": over([one.kl for one in row.answers], positions),
        "leak": mean(shares, bootstrap),
        "leak_difference": mean(
            [own - other for own, other in zip(shares, teacher, strict=True)], bootstrap
        ),
    }
    metrics = {name: found.rounded() for name, found in estimates.items() if found is not None}
    longest = max(one.longest_run for one in row.extractions)
    metrics["leak_worst"] = {"value": round(max(shares), DIGITS), "n": len(shares)}
    metrics["longest_run"] = {"value": longest, "n": len(shares)}
    return metrics


def score_probes(
    tasks: dict[str, dict[str, ProbedRow]], bootstrap: Bootstrap
) -> dict[str, ProbeScores]:
    """{task: {row: {metric: {"value", "low", "high", "n"}}}}, as in probe_scores.json."""
    return {
        task: {name: score_row(row, rows[FULL_PROMPT], bootstrap) for name, row in rows.items()}
        for task, rows in tasks.items()
    }
