"""From figures to a verdict: the ends of every threshold, and what is said besides."""

from typing import Any

import pytest

from gcd.internalize.outcome import Verdict
from gcd.internalize.settings import AtLeast, AtMost, AtMostRatio
from gcd.internalize.verdict import decide, judge
from tests.test_internalize_measures import SETTINGS, exactly


@pytest.mark.parametrize(
    ("limits", "measure", "value", "low", "high", "mark"),
    [
        (AtLeast(keep=0.9, care=0.7), "top1_agreement", 0.95, 0.9, 1.0, "good"),
        (AtLeast(keep=0.9, care=0.7), "top1_agreement", 0.95, 0.89, 1.0, "care"),
        (AtLeast(keep=0.9, care=0.7), "top1_agreement", 0.7, 0.5, 0.8, "care"),
        (AtLeast(keep=0.9, care=0.7), "top1_agreement", 0.69, 0.5, 0.95, "bad"),
        (AtMost(keep=0.2, care=0.6), "kl", 0.1, 0.0, 0.2, "good"),
        (AtMost(keep=0.2, care=0.6), "kl", 0.1, 0.0, 0.21, "care"),
        (AtMost(keep=0.2, care=0.6), "kl", 0.61, 0.1, 0.9, "bad"),
        (AtMostRatio(keep=1.25, care=2.0), "length_ratio", 1.0, 0.8, 1.25, "good"),
        (AtMostRatio(keep=1.25, care=2.0), "length_ratio", 1.0, 0.79, 1.25, "care"),
        (AtMostRatio(keep=1.25, care=2.0), "length_ratio", 0.49, 0.4, 0.6, "bad"),
        (AtMostRatio(keep=1.25, care=2.0), "length_ratio", 2.01, 1.0, 3.0, "bad"),
        (AtMostRatio(keep=1.25, care=2.0), "length_ratio", 0.0, 0.0, 0.0, "bad"),
        # A lower perplexity than the base model's is no fault.
        (AtMostRatio(keep=1.2, care=2.0), "perplexity_ratio", 0.4, 0.3, 0.5, "good"),
    ],
)
def test_marks(limits: Any, measure: str, value: float, low: float, high: float, mark: str) -> None:
    assert judge(measure, {"value": value, "low": low, "high": high, "n": 9}, limits).mark == mark


def perfect() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Scores and probes of a student that is its teacher."""
    best = {
        "kl": exactly(0.0),
        "top1_agreement": exactly(1.0),
        "exact_agreement": exactly(1.0),
        "semantic_agreement": exactly(1.0),
        "format_validity": exactly(1.0),
        "length_ratio": exactly(1.0),
    }
    worst = {"kl": exactly(2.0), "top1_agreement": exactly(0.3), "length_ratio": exactly(3.0)}
    probe = {"perplexity_ratio": exactly(1.0), "leak_worst": {"value": 0.0, "n": 5}}
    scores = {"full_prompt": dict(best), "no_prompt": worst, "gcd": dict(best)}
    return scores, {name: dict(probe) for name in scores}


def verdict(changes: dict[str, Any], probes: dict[str, Any] | None = None) -> Verdict:
    scores, probed = perfect()
    scores["gcd"] |= changes
    probed["gcd"] |= probes or {}
    scores["gcd"] = {name: one for name, one in scores["gcd"].items() if one is not None}
    return decide(SETTINGS.verdict, scores, probed, {})


def test_the_worst_measure_decides() -> None:
    assert verdict({}).word == "keep"
    assert verdict({"kl": {**exactly(0.1), "high": 0.3}}).word == "keep with care"
    assert verdict({"format_validity": exactly(0.5)}).word == "do not use"
    assert verdict({}, {"leak_worst": {"value": 0.5, "n": 5}}).word == "keep with care"
    assert verdict({}, {"perplexity_ratio": exactly(3.0)}).word == "do not use"


def test_what_was_not_measured_is_said_and_decides_nothing() -> None:
    found = verdict({"semantic_agreement": None, "format_validity": None})
    assert found.word == "keep"
    notes = {one.measure: one.note for one in found.judged if one.mark == "not measured"}
    assert set(notes) == {"semantic_agreement", "format_validity"}
    assert "FORMAT" in notes["format_validity"]


def test_a_student_no_nearer_than_without_the_prompt_is_not_used() -> None:
    """However good its numbers: an easy prompt that the base model follows anyway."""
    scores, probes = perfect()
    scores["no_prompt"] |= {"kl": exactly(0.0)}
    found = decide(SETTINGS.verdict, scores, probes, {})
    assert found.word == "do not use"
    assert "In kl its interval overlaps with that of no_prompt" in found.further[0]


def test_a_teacher_that_breaks_its_own_format_is_named() -> None:
    scores, probes = perfect()
    scores["full_prompt"]["format_validity"] = exactly(0.6)
    found = decide(SETTINGS.verdict, scores, probes, {})
    assert "only 60.0 %" in found.further[0]


def test_first_choices_without_the_probabilities_are_named() -> None:
    assert verdict({}).further == []
    assert "its probabilities are not: KL is high" in verdict({"kl": exactly(0.4)}).further[0]
    assert verdict({"kl": exactly(0.4), "top1_agreement": exactly(0.8)}).further == []


def test_a_student_that_failed() -> None:
    found = decide(SETTINGS.verdict, {}, {}, {"gcd": "The loss is nan at step 3."})
    assert found.word == "do not use"
    assert found.further == ["It failed: The loss is nan at step 3."]
