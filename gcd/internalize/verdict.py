"""Keep, keep with care, or do not use: the student's measures against two thresholds each.

    good   the whole interval is at least as good as `keep`
    bad    the value itself is worse than `care`
    care   anything between

One bad measure is "do not use", none but good ones is "keep". An interval is wide over few inputs,
so "keep" also takes enough of them. Beside the thresholds, a student must come clearly nearer to
the teacher than the model without the prompt: with intervals that do not overlap in `kl` and in
`top1_agreement`. One that does not has not taken the prompt in.
"""

from gcd.core.records import FULL_PROMPT
from gcd.internalize.agreement import Estimates, clearly_better
from gcd.internalize.outcome import Judged, Verdict, Word
from gcd.internalize.settings import AtLeast, AtMost, AtMostRatio, VerdictSettings

BASELINE = "no_prompt"
NEARER = ("kl", "top1_agreement")
MISSING = {
    "semantic_agreement": "no encoder was given (internalize.yaml, `embedding_model`)",
    "format_validity": "no format was given (FORMAT=…)",
}


def judge(
    measure: str, estimate: dict[str, float] | None, limits: AtLeast | AtMost | AtMostRatio
) -> Judged:
    """One measure against its thresholds; an estimate without an interval is one of no width."""
    if estimate is None:
        note = MISSING.get(measure, "nothing to measure it on")
        return _judged(measure, None, limits, "not measured", note)
    value = estimate["value"]
    low, high = estimate.get("low", value), estimate.get("high", value)
    if isinstance(limits, AtLeast):
        good, bad = low >= limits.keep, value < limits.care
    elif measure == "length_ratio":
        # Half as long is as far off as twice as long; no reply at all is further than anything.
        good = low > 0 and max(high, 1 / low) <= limits.keep
        bad = value <= 0 or max(value, 1 / value) > limits.care
    else:
        good, bad = high <= limits.keep, value > limits.care
    return _judged(measure, estimate, limits, "bad" if bad else "good" if good else "care", "")


def _judged(
    measure: str,
    estimate: dict[str, float] | None,
    limits: AtLeast | AtMost | AtMostRatio,
    mark: str,
    note: str,
) -> Judged:
    return Judged.model_validate(
        {
            "measure": measure,
            "estimate": estimate,
            "keep": limits.keep,
            "care": limits.care,
            "mark": mark,
            "note": note,
        }
    )


def not_nearer(student: Estimates, baseline: Estimates) -> list[str]:
    """Those of `NEARER` in which the student is not clearly better than without the prompt."""
    return [
        measure
        for measure in NEARER
        if not clearly_better(measure, student[measure], baseline[measure])
    ]


def only_first_choices(judged: list[Judged]) -> bool:
    """Whether the student has the teacher's first choices, and not its probabilities."""
    marks = {one.measure: one.mark for one in judged}
    return marks["top1_agreement"] == "good" and marks["kl"] in ("care", "bad")


def decide(
    settings: VerdictSettings,
    scores: dict[str, Estimates],
    probes: dict[str, Estimates],
    failures: dict[str, str],
) -> Verdict:
    """The verdict on the student.

    Args:
        settings: thresholds, and the student's name.
        scores, probes: {row: {measure: estimate}}.
        failures: {row: reason} of those that could not be trained, played or probed.
    """
    student = settings.student
    if student in failures:
        return Verdict(word="do not use", judged=[], further=[f"It failed: {failures[student]}"])
    measures = scores[student] | {
        name: probes[student][name]
        for name in ("perplexity_ratio", "leak_worst")
        if name in probes[student]
    }
    names = [name for name in VerdictSettings.model_fields if name != "student"]
    judged = [judge(name, measures.get(name), getattr(settings, name)) for name in names]
    marks = {one.mark for one in judged}
    further = []
    if BASELINE in scores and (alike := not_nearer(scores[student], scores[BASELINE])):
        marks.add("bad")
        further.append(
            f"In {' and '.join(alike)} its interval overlaps with that of {BASELINE}, or is worse: "
            "it is not clearly nearer to the prompted teacher than the model without the prompt."
        )
    own = scores.get(FULL_PROMPT, {}).get("format_validity")
    if own is not None and own["value"] < settings.format_validity.keep:
        further.append(
            f"The prompted teacher itself keeps the format in only {100 * own['value']:.1f} % of "
            "its replies, and a student learns that, too: mend the prompt first."
        )
    if only_first_choices(judged):
        further.append(
            "Its first choices are the teacher's, its probabilities are not: KL is high. A greedy "
            "reply follows from the first choices, a sampled one from the probabilities. "
            "docs/internalize.md says which row is trained on them."
        )
    word: Word = "keep with care"
    if "bad" in marks:
        word = "do not use"
    elif marks <= {"good", "not measured"}:
        word = "keep"
    return Verdict(word=word, judged=judged, further=further)
