"""Scoring: intervals against hand-worked values, and what counts as what."""

import numpy as np
import pytest

from gcd.core.records import (
    FULL_PROMPT,
    Action,
    AgentRecord,
    Episode,
    PromptRecall,
    StateReply,
    Turn,
)
from gcd.rows import Row
from gcd.scoring import Bootstrap, score_row, score_tasks, valid_action_rate, wilson

BOOTSTRAP = Bootstrap(confidence=0.95, samples=500, seed=0)


def act(content: str | None = "ls", kind: str = "bash") -> Action:
    return Action(kind=kind, content=content)


def make_turns(actions: list[Action | None]) -> list[Turn]:
    return [
        Turn(
            reply="r",
            context_tokens=10 + 30 * place,
            reply_tokens=5,
            complete=True,
            continues=False,
            action=action,
            observation=None,
        )
        for place, action in enumerate(actions)
    ]


def make_episode(
    index: str,
    score: float,
    actions: list[Action | None] | None = None,
    status: str = "completed",
    tier: str | None = None,
) -> Episode:
    return Episode(
        task="t",
        row="r",
        index=index,
        groups={} if tier is None else {"tier": tier},
        problem="p",
        status=status,
        score=score,
        measures={},
        details={},
        prompt_tokens=0,
        turns=make_turns([act()] if actions is None else actions),
        error=None,
    )


def make_row(
    episodes: list[Episode], replies: list[StateReply] | None = None, method: str = "m"
) -> Row:
    agent = AgentRecord(
        row="r", deployment="base", prompt_tokens=0, adapter_parameters=0, bytes_to_ship=0
    )
    return Row(method, agent, episodes, replies or [], recall=[])


def test_wilson_interval_hand_worked() -> None:
    # 5 of 10, z = 1.96: centre (0.5 + 0.19208) / 1.38416 = 0.5, half width
    # 1.96 / 1.38416 * sqrt(0.025 + 3.8416 / 400) = 1.41602 * sqrt(0.034604) = 0.26341.
    half = wilson(5, 10, 0.95)
    assert half is not None
    assert (half.value, half.n) == (0.5, 10)
    assert half.low == pytest.approx(0.2366, abs=1e-4)
    assert half.high == pytest.approx(0.7634, abs=1e-4)
    # 0 of 10: the upper end is z^2 / (n + z^2) = 3.84146 / 13.84146 = 0.27753, the lower 0.
    none = wilson(0, 10, 0.95)
    assert none is not None
    assert none.low == pytest.approx(0, abs=1e-15)
    assert none.low >= 0
    assert none.high == pytest.approx(0.27753, abs=1e-5)


def test_wilson_is_symmetric_and_narrows() -> None:
    few, many, all_ = wilson(3, 10, 0.95), wilson(7, 10, 0.95), wilson(300, 1000, 0.95)
    assert few and many and all_
    assert few.low == pytest.approx(1 - many.high)
    assert all_.high - all_.low < few.high - few.low
    wide, narrow = wilson(3, 10, 0.99), wilson(3, 10, 0.9)
    assert wide and narrow
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wilson(0, 0, 0.95) is None


def test_success_needs_the_whole_score_and_failures_to_run_count() -> None:
    episodes = [
        make_episode("1", 1.0),
        make_episode("2", 0.999),  # a near miss is none
        make_episode("3", 0.0, status="unknown", actions=[]),
        make_episode("4", 0.0, status="task error"),
    ]
    row = make_row(episodes)
    metrics = score_row(row, row, BOOTSTRAP)
    assert (metrics["success_rate"].value, metrics["success_rate"].n) == (0.25, 4)


def test_silent_and_oracle_rows() -> None:
    oracle = make_row([make_episode(str(index), 1.0) for index in range(6)])
    silent = make_row([make_episode(str(index), 0.0, [None]) for index in range(6)])
    metrics = score_row(silent, oracle, BOOTSTRAP)
    for name in ("success_rate", "relative_to_full_prompt", "valid_action_rate"):
        assert metrics[name].value == 0.0
    metrics = score_row(oracle, oracle, BOOTSTRAP)
    for name in ("success_rate", "relative_to_full_prompt", "valid_action_rate"):
        assert metrics[name].value == 1.0


def test_full_prompt_relative_to_itself_is_exactly_one() -> None:
    row = make_row([make_episode(str(index), float(index % 3 == 0)) for index in range(12)])
    relative = score_row(row, row, BOOTSTRAP)["relative_to_full_prompt"]
    # Paired: every resample has the same numerator and denominator. (Unpaired it would spread.)
    assert (relative.value, relative.low, relative.high) == (1.0, 1.0, 1.0)


def test_relative_pairs_by_index_not_by_position() -> None:
    teacher = make_row([make_episode(str(index), float(index < 5)) for index in range(10)])
    shuffled = make_row(list(reversed(teacher.episodes)))
    relative = score_row(shuffled, teacher, BOOTSTRAP)["relative_to_full_prompt"]
    assert (relative.low, relative.high) == (1.0, 1.0)


def test_ratio_drops_resamples_without_denominator() -> None:
    # Two samples, one solved by both: a quarter of the resamples draws the other one twice
    # (0 / 0). The rest have the ratio 1, so the interval is [1, 1] and nothing is NaN.
    scores = np.array([1.0, 0.0])
    estimate = BOOTSTRAP.ratio(scores, scores)
    assert estimate is not None
    assert (estimate.low, estimate.high) == (1.0, 1.0)
    assert BOOTSTRAP.ratio(scores, np.zeros(2)) is None
    assert BOOTSTRAP.ratio(np.array([]), np.array([])) is None


def test_bootstrap_of_a_mean_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    estimate = Bootstrap(0.95, 2000, 3).ratio(values, np.ones(400))
    assert estimate is not None
    half = 1.96 * values.std() / 20  # 20 = sqrt(400)
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)
    assert estimate == Bootstrap(0.95, 2000, 3).ratio(values, np.ones(400))
    assert estimate != Bootstrap(0.95, 2000, 4).ratio(values, np.ones(400))


def test_cluster_bootstrap_draws_whole_episodes() -> None:
    # One episode of 9 valid turns and one of 1 invalid: resamples are 9/9, 9/10, 0/1 only.
    # Turns drawn one by one would hardly ever give 0.
    episodes = [make_episode("1", 1.0, [act()] * 9), make_episode("2", 0.0, [None])]
    estimate = valid_action_rate(episodes, BOOTSTRAP)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.9, 0.0, 1.0, 10)


def test_cluster_bootstrap_of_equal_episodes_has_no_width() -> None:
    episodes = [make_episode(str(index), 0.0, [act(), None]) for index in range(8)]
    estimate = valid_action_rate(episodes, BOOTSTRAP)
    assert estimate is not None
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_teacher_agreement_near_misses() -> None:
    cases = [
        (act("ls"), act("ls")),  # agrees
        (act("ls "), act("ls")),  # one space off
        (act("ls", kind="answer"), act("ls")),  # other kind
        (None, act("ls")),  # no action
        (None, None),  # the teacher had none: left out, or silence would be agreement
        (act(None, kind="finish"), act(None, kind="finish")),  # agrees
    ]
    replies = [
        StateReply(index=place, reply="r", action=action, teacher_action=teacher_action)
        for place, (action, teacher_action) in enumerate(cases)
    ]
    row = make_row([make_episode("1", 1.0)], replies)
    agreement = score_row(row, row, BOOTSTRAP)["teacher_agreement"]
    assert (agreement.value, agreement.n) == (0.4, 5)


def test_metrics_without_cases_are_left_out() -> None:
    row = make_row([make_episode("1", 0.0, [], status="unknown")])
    assert set(score_row(row, row, BOOTSTRAP)) == {"success_rate", "mean_score"}


def test_tiers_share_out_the_samples() -> None:
    episodes = [make_episode(str(index), float(index < 2), tier="easy") for index in range(4)]
    episodes += [make_episode(str(index), 0.0, tier="hard") for index in range(4, 6)]
    row = make_row(episodes)
    metrics = score_row(row, row, BOOTSTRAP)
    assert (metrics["success_rate_easy"].value, metrics["success_rate_easy"].n) == (0.5, 4)
    assert (metrics["success_rate_hard"].value, metrics["success_rate_hard"].n) == (0.0, 2)


def test_scores_are_rounded_once_and_sets_of_rows_do_not_matter() -> None:
    teacher = make_row([make_episode(str(index), float(index > 0)) for index in range(3)])
    other = make_row([make_episode(str(index), float(index > 1)) for index in range(3)])
    alone = score_tasks({"t": {FULL_PROMPT: teacher}}, BOOTSTRAP)["t"]
    both = score_tasks({"t": {FULL_PROMPT: teacher, "x": other}}, BOOTSTRAP)["t"]
    assert both[FULL_PROMPT] == alone[FULL_PROMPT]
    assert alone[FULL_PROMPT]["success_rate"]["value"] == 0.6667
    assert both["x"]["relative_to_full_prompt"]["value"] == 0.5


def test_prompt_recall_is_the_mean_over_requests() -> None:
    asked = [
        PromptRecall(index=index, text="t", edit_similarity=similarity, rouge_l=similarity / 2)
        for index, similarity in ((0, 1.0), (3, 0.5))
    ]
    row = Row("m", make_row([]).agent, [make_episode("1", 1.0)], [], asked)
    metrics = score_row(row, row, BOOTSTRAP)
    assert (metrics["prompt_recall"].value, metrics["prompt_recall"].n) == (0.75, 2)
    assert metrics["rouge_l"].value == 0.375
    silent = make_row([make_episode("1", 1.0)])  # nobody asked
    assert not {"prompt_recall", "rouge_l"} & set(score_row(silent, row, BOOTSTRAP))
