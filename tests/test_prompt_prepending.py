"""The prompt in front by a coin: end points, fairness, resuming; and what it costs to read."""

from dataclasses import replace
from functools import partial

import torch

from gcd.core.params import Params
from gcd.methods.prompt_prepending import Settings, rows, toss, with_room
from gcd.training.losses import Example, pack, read_ids, token_loss_sum
from gcd.training.terms import Term, Visit, micro_batches
from tests.settings import sections

PLAIN = [Example([k, k + 1, k + 2], [False, True, True]) for k in range(5)]
PROMPTED = [Example([90, 91, *one.ids], [False, False, *one.supervised]) for one in PLAIN]
TERM = Term({"sft": 1.0}, PLAIN, 0, 5, 1, token_loss_sum)


def draw(share, step):
    return replace(TERM, visit=partial(toss, PROMPTED, share)).draw(step, 0)


def test_a_share_of_all_is_always_the_prompt():
    for step in range(20):
        assert all(example in PROMPTED for example in draw(100, step))


def test_half_is_a_fair_coin_for_each_example_and_visit():
    """500 visits: 250 and a little; and no example has the same coin every time."""
    drawn = [example for step in range(100) for example in draw(50, step)]
    count = sum(example in PROMPTED for example in drawn)
    assert 215 <= count <= 285
    for plain, prompted in zip(PLAIN, PROMPTED, strict=True):
        assert 30 <= drawn.count(prompted) <= 70
        assert drawn.count(plain) + drawn.count(prompted) == 100


def test_the_coin_depends_on_seed_and_visit_only():
    assert draw(50, 7) == draw(50, 7)
    visits = [Visit(PLAIN[place], place, f"0/sft/3/{place}") for place in range(5)]
    together = toss(PROMPTED, 50, visits)
    assert together == [toss(PROMPTED, 50, [visit])[0] for visit in visits]


def test_micro_batches_have_room_for_the_prompt_and_nothing_else_changes():
    params = Params(sections("train"), {})
    changed = with_room(params, 700)
    before = params.train.model_dump()
    assert changed.train.micro_batch_tokens == before["micro_batch_tokens"] + 700
    assert changed.train.model_dump() | before == before


def test_rows_come_with_and_without_the_prompt():
    assert rows(Settings(shares=[100, 50])) == [
        "prompt_prepending_100",
        "prompt_prepending_100_with_prompt",
        "prompt_prepending_50",
        "prompt_prepending_50_with_prompt",
    ]


def test_a_micro_batch_counts_the_prompt_once():
    """By hand: four examples read 2 + 2 tokens each, together 2 + 4 x 2 = 10."""
    assert sum(len(read_ids(example)) for example in PROMPTED[:4]) == 16
    [group] = micro_batches(PROMPTED[:4], 10)
    assert pack(group, torch.device("cpu")).ids.numel() == 10
    assert [len(group) for group in micro_batches(PROMPTED[:4], 9)] == [3, 1]


def test_an_example_without_the_prompt_does_not_take_it_from_the_others():
    """Three with the prompt read 2 + 3 x 2 = 8, one without 3; in one row they would read 15."""
    groups = micro_batches([PLAIN[0], *PROMPTED[:3]], 100)
    assert sorted(len(group) for group in groups) == [1, 3]
    assert len(micro_batches([PLAIN[0], PROMPTED[0]], 100)) == 1  # nothing is shared yet
