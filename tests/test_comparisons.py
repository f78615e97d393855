"""Which rows differ: by hand, at the end points, and against the exact test that it stands for."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from gcd.comparisons import best_row, cases, compare, compare_tasks, holm, paired_p
from gcd.core.records import Action, StateReply
from gcd.report.comparison_tables import bold_cells, clear_best, comparison_table, summarise_best
from gcd.scoring import Bootstrap

BOOTSTRAP = Bootstrap(confidence=0.95, samples=200, seed=0)
LS = Action(kind="bash", content="ls")


def row(scores: Sequence[float], turns: list[list[bool]] | None = None, agree: str = "") -> Any:
    """A row by its scores, the validity of its turns, and y or n for each teacher state."""
    played = turns or [[True]] * len(scores)
    return SimpleNamespace(
        episodes=[
            SimpleNamespace(
                index=f"{place:02}",
                score=score,
                turns=[SimpleNamespace(action=LS if valid else None) for valid in valids],
            )
            for place, (score, valids) in enumerate(zip(scores, played, strict=True))
        ],
        state_replies=[
            StateReply(index=place, reply="", action=LS if one == "y" else None, teacher_action=LS)
            for place, one in enumerate(agree)
        ],
    )


def test_cases_by_hand():
    one = row([1, 0.5, 0], [[True, False], [], [True, True]], "yn")
    assert cases(one, "mean_score").tolist() == [1, 0.5, 0]
    assert cases(one, "valid_action_rate").tolist() == [0.5, 0, 1]
    assert cases(one, "teacher_agreement").tolist() == [1, 0]
    one.state_replies.append(StateReply(index=2, reply="", action=LS, teacher_action=None))
    assert len(cases(one, "teacher_agreement")) == 2


def test_yes_and_no_is_mcnemar():
    """7 cases won and 1 lost of 8 that differ: the exact binomial test, whatever is equal."""
    ours = np.array([1.0] * 7 + [0.0] + [1.0, 0.0])
    others = np.array([0.0] * 7 + [1.0] + [1.0, 0.0])
    assert paired_p(ours, others, 9999, 0) == pytest.approx(binomtest(7, 8).pvalue)


def test_end_points_of_p():
    ours = np.array([1.0, 0.0, 1.0])
    assert paired_p(ours, ours, 99, 0) == 1.0
    many = np.ones(40)
    assert paired_p(many, 1 - many, 99, 0) == pytest.approx(2 / 100)  # both tails of 99 draws
    assert paired_p(many, 1 - many, 99, 0) == paired_p(many, 1 - many, 99, 0)


def test_holm_by_hand():
    """0.01 x 3, 0.03 x 2, then 0.04 x 1, which may not be less than the one before."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"b": 0.03, "c": 0.06, "a": 0.06}
    )
    assert holm({"a": 0.7, "b": 0.6}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_a_difference_and_its_sign():
    rows = {"a": row([1, 1, 0, 0]), "b": row([1, 0, 0, 0])}
    ahead = compare(rows, "a", "mean_score", BOOTSTRAP, 99)["b"]
    behind = compare(rows, "b", "mean_score", BOOTSTRAP, 99)["a"]
    assert (ahead.difference, behind.difference) == (0.25, -0.25)
    assert (ahead.low, ahead.high) == (-behind.high, -behind.low)
    assert ahead.p == behind.p == 1.0  # one case differs: either sign is as likely


def test_the_best_row_is_no_bound_and_alone():
    rows = {"full_prompt": row([1, 1]), "a": row([1, 0]), "b": row([0, 0])}
    assert best_row(rows, "mean_score") == "a"
    assert best_row({**rows, "c": row([0, 1])}, "mean_score") is None
    assert best_row(rows, "teacher_agreement") is None


def compared(best: list[int], second: list[int]) -> dict[str, Any]:
    rows = {
        "full_prompt": row([1] * len(best)),
        "no_prompt": row([0] * len(best)),
        "gcd": row(best),
        "seqkd": row(second),
    }
    return compare_tasks({"os": rows}, "gcd", BOOTSTRAP, 999)["os"]


def test_bold_is_only_what_differs():
    clear = compared([1] * 12, [0] * 12)
    assert clear_best(clear, "mean_score", 0.95) == "gcd"
    assert bold_cells(clear, 0.95) == {("gcd", "Mean score (%)")}
    near = compared([1] * 12, [1] * 11 + [0])
    assert near["mean_score"]["best"]["row"] == "gcd"
    assert bold_cells(near, 0.95) == set()
    assert "no one is clearly better" in " ".join(summarise_best(near, 0.95).split())


def test_the_chosen_row_against_all_others():
    found = compared([1] * 12, [0] * 12)
    assert set(found["mean_score"]["chosen"]["against"]) == {"full_prompt", "no_prompt", "seqkd"}
    assert set(found["mean_score"]["best"]["against"]) == {"seqkd"}
    table = comparison_table(found, ["seqkd", "full_prompt"]).set_index("Against")
    assert table.loc["full_prompt", "Score (points)"] == "+0.0 (+0.0 to +0.0)"
    assert table.loc["seqkd", "Score (points)"] == "+100.0 (+100.0 to +100.0)"


def test_a_task_without_the_chosen_row_has_no_such_family():
    rows = {"full_prompt": row([1, 1]), "a": row([1, 0])}
    found = compare_tasks({"os": rows}, "gcd", BOOTSTRAP, 99)["os"]
    assert found["mean_score"] == {}
    assert comparison_table(found, ["a"]).empty
