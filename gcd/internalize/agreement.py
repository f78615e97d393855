"""From replies and readings to figures with intervals. Pure functions: no model, no files.

Measures of one row against the prompted teacher, over the held-out inputs that both replied to:

kl                  KL(teacher || row) in nats a position along the teacher's replies; 0 at best.
top1_agreement      share of these positions where the row's first choice is the teacher's.
exact_agreement     share of inputs with word for word the teacher's reply (white space around it
                    does not count), Wilson.
semantic_agreement  cosine of the embeddings of the two replies, mean; only with an encoder.
format_validity     share of replies with the user's format, Wilson; only where one is given.
length_ratio        tokens of the row's replies over those of the teacher's; 1 at best.

The bootstrap draws inputs, with all positions of their replies. `perplexity_ratio` and `leak_worst`
come from the probes (`gcd.probe_scores`).
"""

from collections.abc import Callable
from itertools import compress
from math import log

import numpy as np

from gcd.core.records import FULL_PROMPT
from gcd.internalize.formats import Format
from gcd.internalize.records import Answer, Measured
from gcd.probing.records import AnswerReading
from gcd.scoring import Bootstrap, Estimate, mean, wilson

Estimates = dict[str, dict[str, float]]  # of one row: {measure: {"value", "low", "high", "n"}}
Cosines = Callable[[list[str], list[str]], list[float]]
# Those that say how near a row comes to the teacher, and in which direction they are better.
FIDELITY = {
    "kl": "low",
    "top1_agreement": "high",
    "exact_agreement": "high",
    "semantic_agreement": "high",
    "format_validity": "high",
    "length_ratio": "near 1",
}


def along(readings: list[AnswerReading], bootstrap: Bootstrap) -> dict[str, Estimate | None]:
    """Divergence and agreement at the teacher's positions."""
    positions = np.array([one.positions for one in readings], dtype=np.float64)
    return {
        "kl": bootstrap.ratio(np.array([one.kl for one in readings], dtype=np.float64), positions),
        "top1_agreement": bootstrap.ratio(
            np.array([one.agreeing for one in readings], dtype=np.float64), positions
        ),
    }


def paired(row: list[Answer], teacher: list[Answer]) -> list[tuple[Answer, Answer]]:
    """The row's and the teacher's answers to the inputs that both replied to."""
    known = {one.index: one for one in teacher}
    return [(one, known[one.index]) for one in row if one.index in known]


def score_answers(
    pairs: list[tuple[Answer, Answer]],
    format: Format | None,
    cosines: Cosines | None,
    bootstrap: Bootstrap,
) -> dict[str, Estimate | None]:
    """What the row's replies have in common with the teacher's."""
    ours, theirs = [one.reply for one, _ in pairs], [other.reply for _, other in pairs]
    same = sum(one.strip() == other.strip() for one, other in zip(ours, theirs, strict=True))
    found = {"exact_agreement": wilson(same, len(pairs), bootstrap.confidence)}
    if cosines is not None:
        found["semantic_agreement"] = mean(cosines(ours, theirs), bootstrap)
    if format is not None:
        valid = sum(format.holds(reply) for reply in ours)
        found["format_validity"] = wilson(valid, len(pairs), bootstrap.confidence)
    found["length_ratio"] = bootstrap.ratio(
        np.array([one.tokens for one, _ in pairs], dtype=np.float64),
        np.array([other.tokens for _, other in pairs], dtype=np.float64),
    )
    return found


def score_rows(
    rows: dict[str, Measured], format: Format | None, cosines: Cosines | None, bootstrap: Bootstrap
) -> dict[str, Estimates]:
    """{row: {measure: estimate}}, rounded; a measure without cases is left out."""
    teacher = rows[FULL_PROMPT].answers
    scored = {}
    for name, row in rows.items():
        pairs = paired(row.answers, teacher)
        estimates = along(row.readings, bootstrap)
        estimates |= score_answers(pairs, format, cosines, bootstrap)
        scored[name] = {
            measure: estimate.rounded()
            for measure, estimate in estimates.items()
            if estimate is not None
        }
    return scored


def of_source(rows: dict[str, Measured], source: str) -> dict[str, Measured]:
    """The rows with nothing but the inputs of one source: "user" or "synthesised"."""
    kept = [one.source == source for one in rows[FULL_PROMPT].answers]
    return {
        name: Measured(
            row.method,
            [one for one in row.answers if one.source == source],
            list(compress(row.readings, kept)),
        )
        for name, row in rows.items()
    }


def score_sources(
    rows: dict[str, Measured],
    student: str,
    format: Format | None,
    cosines: Cosines | None,
    bootstrap: Bootstrap,
) -> dict[str, Estimates]:
    """{source: the student's estimates on its inputs}; empty without a student or a second one."""
    sources = sorted({one.source for one in rows[FULL_PROMPT].answers})
    if student not in rows or len(sources) == 1:
        return {}
    return {
        source: score_rows(of_source(rows, source), format, cosines, bootstrap)[student]
        for source in sources
    }


def badness(measure: str, estimate: dict[str, float]) -> tuple[float, float]:
    """The interval of an estimate on a scale where 0 is best and more is worse.

    Of a share what it lacks to 1; of a ratio its distance from 1 as |ln r|, so that twice as long
    and half as long are as bad.
    """
    low, high = estimate["low"], estimate["high"]
    direction = FIDELITY[measure]
    if direction == "low":
        return low, high
    if direction == "high":
        return 1 - high, 1 - low
    ends = sorted(abs(log(max(end, 1e-9))) for end in (low, high))
    return (0.0 if low <= 1 <= high else ends[0]), ends[1]


def clearly_better(measure: str, ours: dict[str, float], others: dict[str, float]) -> bool:
    """Whether the whole interval of ours is better than that of the others."""
    return badness(measure, ours)[1] < badness(measure, others)[0]
