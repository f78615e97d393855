"""Hand-computed values and invariances of the losses."""

import math

import pytest
import torch

from gcd.losses import Example, collate, token_loss_sum
from gcd.training import attach_lora
from tests.test_training import SETTINGS


@pytest.fixture
def adapted(model):
    return attach_lora(model, SETTINGS, four_bit=False, seed=0).eval()


def example(ids, labels):
    return Example(ids, [place in labels for place in range(len(ids))])


def dense_loss(model, item):
    """By the book: logits at every position, minus log softmax at the label."""
    logits = model(input_ids=torch.tensor([item.ids])).logits[0].double()
    return sum(
        -torch.log_softmax(logits[place - 1], -1)[item.ids[place]]
        for place in range(1, len(item.ids))
        if item.supervised[place]
    )


def test_uniform_model_costs_log_vocabulary_a_token(adapted, tokenizer):
    """All weights of the head zero: every token has probability 1 / V."""
    adapted.get_base_model().lm_head.weight.data.zero_()
    batch = collate([example([5, 6, 7, 8], {2, 3})], torch.device("cpu"))
    assert token_loss_sum(adapted, batch).item() == pytest.approx(2 * math.log(len(tokenizer)))


def test_equals_the_dense_loss(adapted):
    items = [example([5, 6, 7, 8, 9], {1, 4}), example([9, 8, 7], {2})]
    expected = sum(dense_loss(adapted, item) for item in items)
    batch = collate(items, torch.device("cpu"))
    assert token_loss_sum(adapted, batch).item() == pytest.approx(float(expected), abs=1e-4)


def test_first_token_is_never_a_label():
    assert example([5, 6], {0, 1}).label_count == 1


def test_padding_changes_nothing(adapted):
    short = example([5, 6, 7], {1, 2})
    alone = token_loss_sum(adapted, collate([short], torch.device("cpu")))
    longer = example(list(range(20)), {19})
    other = token_loss_sum(adapted, collate([longer], torch.device("cpu")))
    both = token_loss_sum(adapted, collate([short, longer], torch.device("cpu")))
    assert both.item() == pytest.approx(alone.item() + other.item(), abs=1e-4)
