"""From replies to figures and savings: hand-computed values, ends, near misses."""

from math import log

import numpy as np
import pytest
from numpy.typing import NDArray

from gcd.core.records import AgentRecord, Episode
from gcd.cost import episode_flops
from gcd.internalize.agreement import badness, clearly_better, paired, score_rows, score_sources
from gcd.internalize.formats import Format
from gcd.internalize.records import Answer, Measured
from gcd.internalize.savings import count_savings, session, tokens_read
from gcd.internalize.settings import PriceSettings, TrafficSettings, read_settings
from gcd.probing.records import AnswerReading
from gcd.rows import Row
from gcd.scoring import Bootstrap, wilson
from tests.conftest import ROOT
from tests.tiny import ARCHITECTURE

BOOTSTRAP = Bootstrap(confidence=0.95, samples=200, seed=0)
SETTINGS = read_settings(ROOT / "internalize.yaml")
TEXTS = ["yes", "no", "yes", "perhaps"]


def answers(replies: list[str], tokens: int = 2) -> list[Answer]:
    return [
        Answer(index=str(n), source="user", input=f"q{n}", reply=text, tokens=tokens, complete=True)
        for n, text in enumerate(replies)
    ]


def readings(agreeing: int, kl: float, count: int = 4) -> list[AnswerReading]:
    return [AnswerReading(index=n, positions=4, agreeing=agreeing, kl=4 * kl) for n in range(count)]


def exactly(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value, "n": 4}


# --- Fidelity -------------------------------------------------------------------------------------


def test_the_measures_by_hand() -> None:
    """Four inputs: the same reply to two, a format that three keep, three tokens for two."""
    rows = {
        "full_prompt": Measured("full_prompt", answers(TEXTS), readings(4, 0.0)),
        "gcd": Measured("gcd", answers(["yes", "No", " yes\n", "x"], 3), readings(3, 0.5)),
    }
    scores = score_rows(rows, Format("regular expression", "(?i)yes|no"), None, BOOTSTRAP)
    found = scores["gcd"]
    assert found["kl"] == exactly(0.5)
    assert found["top1_agreement"] == exactly(0.75)
    half = wilson(2, 4, 0.95)
    assert half is not None
    assert found["exact_agreement"] == half.rounded()
    assert found["format_validity"]["value"] == 0.75
    assert found["length_ratio"] == exactly(1.5)
    assert "semantic_agreement" not in found
    teacher = scores["full_prompt"]
    assert teacher["kl"]["value"] == 0
    assert teacher["top1_agreement"]["value"] == teacher["exact_agreement"]["value"] == 1
    assert teacher["length_ratio"] == exactly(1.0)
    assert teacher["format_validity"]["value"] == 0.75


def test_an_input_that_one_of_both_could_not_answer_is_in_no_pair() -> None:
    assert paired(answers(TEXTS)[1:], answers(TEXTS)[:3]) == [
        (one, one) for one in answers(TEXTS)[1:3]
    ]
    rows = {
        "full_prompt": Measured("full_prompt", answers(TEXTS), readings(4, 0.0)),
        "short": Measured("short", answers(TEXTS)[:2], readings(4, 0.1)),
        "silent": Measured("silent", [], readings(0, 9.0)),
    }
    scores = score_rows(rows, None, lambda ours, theirs: [0.5] * len(ours), BOOTSTRAP)
    assert scores["short"]["exact_agreement"]["n"] == 2
    assert scores["short"]["semantic_agreement"] == {**exactly(0.5), "n": 2}
    # No replies: what was read is left, and nothing is made up for the rest.
    assert set(scores["silent"]) == {"kl", "top1_agreement"}


def test_the_student_on_each_source_of_inputs() -> None:
    """Of four inputs the middle two are the user's; only there it replies and reads as taught."""
    user = [False, True, True, False]

    def asked(replies: list[str]) -> list[Answer]:
        return [
            one.model_copy(update={"source": "user" if own else "synthesised"})
            for one, own in zip(answers(replies), user, strict=True)
        ]

    read = [readings(4, 0.1, 4)[n] if own else readings(1, 2.0, 4)[n] for n, own in enumerate(user)]
    rows = {
        "full_prompt": Measured("full_prompt", asked(TEXTS), readings(4, 0.0)),
        "gcd": Measured("gcd", asked(["x", "no", "yes", "x"]), read),
    }
    found = score_sources(rows, "gcd", None, None, BOOTSTRAP)
    assert found["user"]["kl"] == {**exactly(0.1), "n": 2}
    assert found["user"]["exact_agreement"]["value"] == 1
    assert found["synthesised"]["kl"] == {**exactly(2.0), "n": 2}
    assert found["synthesised"]["top1_agreement"]["value"] == 0.25
    assert found["synthesised"]["exact_agreement"]["value"] == 0
    assert score_sources(rows, "failed", None, None, BOOTSTRAP) == {}
    one_source = {name: Measured(name, answers(TEXTS), readings(4, 0.0)) for name in rows}
    assert score_sources(one_source, "gcd", None, None, BOOTSTRAP) == {}


def test_cosines_of_a_bag_of_letters() -> None:
    """The same text 1, nothing in common 0; silence against a text 0, against silence 1."""
    embedding = pytest.importorskip("gcd.internalize.embedding")

    def embed(texts: list[str]) -> NDArray[np.float64]:
        counts = np.array([[text.count(letter) for letter in "ab"] for text in texts], dtype=float)
        lengths = np.maximum(np.sqrt((counts**2).sum(axis=1, keepdims=True)), 1.0)
        return np.asarray(counts / lengths, dtype=np.float64)

    found = embedding.cosines(embed, ["ab", "a", "", "", "aab"], ["ab", "b", "a", " ", "ab"])
    assert found == pytest.approx([1, 0, 0, 1, 3 / (5**0.5 * 2**0.5)])


@pytest.mark.parametrize(
    ("measure", "low", "high", "expected"),
    [
        ("kl", 0.2, 0.5, (0.2, 0.5)),
        ("top1_agreement", 0.7, 0.9, (0.1, 0.3)),
        ("length_ratio", 0.5, 0.8, (log(1.25), log(2))),
        ("length_ratio", 2.0, 4.0, (log(2), log(4))),
        ("length_ratio", 0.8, 1.1, (0.0, log(1.25))),
    ],
)
def test_what_is_worse_on_one_scale(
    measure: str, low: float, high: float, expected: tuple[float, float]
) -> None:
    found = badness(measure, {"value": (low + high) / 2, "low": low, "high": high, "n": 9})
    assert found == pytest.approx(expected)


def test_clearly_better_takes_intervals_that_do_not_touch() -> None:
    def between(low: float, high: float) -> dict[str, float]:
        return {"value": low, "low": low, "high": high, "n": 9}

    assert clearly_better("kl", between(0.1, 0.2), between(0.3, 0.4))
    assert not clearly_better("kl", between(0.1, 0.3), between(0.3, 0.4))
    assert not clearly_better("kl", between(0.3, 0.4), between(0.1, 0.2))
    assert clearly_better("top1_agreement", between(0.8, 0.9), between(0.1, 0.7))
    assert clearly_better("length_ratio", between(0.9, 1.1), between(2.0, 3.0))
    assert clearly_better("length_ratio", between(0.9, 1.1), between(0.2, 0.4))
    assert not clearly_better("length_ratio", between(0.5, 1.1), between(0.4, 0.6))


# --- Savings --------------------------------------------------------------------------------------


def test_a_session_by_hand() -> None:
    """Three turns of 10 and 4 tokens: contexts 10, 24, 38."""
    turns = session(3, 10, 4)
    assert [turn.context_tokens for turn in turns] == [10, 24, 38]
    assert [turn.continues for turn in turns] == [False, True, True]
    assert tokens_read(turns, 100, "recompute") == 110 + 124 + 138
    assert tokens_read(turns, 100, "session_cache") == 130
    assert tokens_read(turns, 100, "prefix_cache") == 30
    for regime in ("recompute", "session_cache", "prefix_cache"):
        assert tokens_read(turns[:1], 0, regime) == 10


def row(name: str, prompt: int) -> Row:
    agent = AgentRecord(
        row=name,
        deployment="base" if prompt else "merged adapter",
        prompt_tokens=prompt,
        adapter_parameters=0 if prompt else 7,
        bytes_to_ship=1,
    )
    episode = Episode(
        task="custom",
        row=name,
        index="0",
        groups={},
        problem="q",
        status="completed",
        score=1.0,
        measures={},
        details={},
        prompt_tokens=prompt,
        turns=session(1, 10, 4),
        error=None,
    )
    return Row(name, agent, [episode], [], [])


def test_savings_by_hand() -> None:
    rows = {"full_prompt": row("full_prompt", 100), "gcd": row("gcd", 0)}
    traffic = TrafficSettings(
        sessions_per_day=1000, turns=3, price_per_million=PriceSettings(input=2.0, output=5.0)
    )
    costs = {"gcd": {"data_flops": 10**9, "training": {"flops": 3 * 10**9}}}
    found = count_savings(ARCHITECTURE, rows, "gcd", costs, traffic)
    assert (found.message_tokens, found.reply_tokens, found.prompt_tokens) == (10, 4, 100)
    by_name = {one.regime: one for one in found.regimes}
    assert list(by_name) == ["recompute", "session_cache", "prefix_cache"]
    # 1,000 sessions: the prompt's tokens three times, once, never, at 2 a million.
    for regime, times in (("recompute", 3), ("session_cache", 1), ("prefix_cache", 0)):
        one = by_name[regime]
        assert one.read_teacher - one.read_student == 100 * times
        assert one.money_teacher - one.money_student == pytest.approx(0.2 * times)
    # A day's output is 12,000 tokens at 5 a million, and with the prompt cached 30,000 are read.
    assert by_name["prefix_cache"].money_teacher == pytest.approx(0.06 + 0.06)
    turns = session(3, 10, 4)
    for regime, one in by_name.items():
        teacher = episode_flops(ARCHITECTURE, turns, 100, 0, regime)
        student = episode_flops(ARCHITECTURE, turns, 0, 0, regime)
        assert (one.flops_teacher, one.flops_student) == (teacher, student)
        assert one.days == pytest.approx(4 * 10**9 / ((teacher - student) * 1000))
    # The more a server caches already, the later the training pays.
    days = [one.days for one in found.regimes if one.days is not None]
    assert len(days) == 3
    assert days == sorted(days)


def test_what_saves_nothing_never_pays() -> None:
    rows = {"full_prompt": row("full_prompt", 100), "same": row("same", 100)}
    costs = {"same": {"data_flops": 1, "training": {"flops": 1}}}
    found = count_savings(ARCHITECTURE, rows, "same", costs, SETTINGS.traffic)
    assert [one.days for one in found.regimes] == [None] * 3
