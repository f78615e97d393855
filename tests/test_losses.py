"""Hand-computed values and invariances of the losses."""

import math

import pytest
import torch

from gcd.losses import Example, pack, token_loss_sum
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
    batch = pack([example([5, 6, 7, 8], {2, 3})], torch.device("cpu"))
    assert token_loss_sum(adapted, batch).item() == pytest.approx(2 * math.log(len(tokenizer)))


def test_equals_the_dense_loss(adapted):
    items = [example([5, 6, 7, 8, 9], {1, 4}), example([9, 8, 7], {2})]
    expected = sum(dense_loss(adapted, item) for item in items)
    batch = pack(items, torch.device("cpu"))
    assert token_loss_sum(adapted, batch).item() == pytest.approx(float(expected), abs=1e-4)


def test_first_token_is_never_a_label():
    assert example([5, 6], {0, 1}).label_count == 1


def test_examples_of_a_row_do_not_see_each_other(adapted):
    """Packed or alone, in any order: the same losses and the same gradients."""
    items = [example([5, 6, 7], {1, 2}), example(list(range(20)), {19}), example([3, 9], {1})]
    losses = [token_loss_sum(adapted, pack([item], torch.device("cpu"))) for item in items]
    alone = torch.stack(losses).sum()
    alone.backward()
    weights = [value for value in adapted.parameters() if value.requires_grad]
    expected = [value.grad.clone() for value in weights]
    for order in (items, items[::-1]):
        adapted.zero_grad()
        together = token_loss_sum(adapted, pack(order, torch.device("cpu")))
        assert together.item() == pytest.approx(alone.item(), abs=1e-4)
        together.backward()
        for value, gradient in zip(weights, expected, strict=True):
            assert torch.allclose(value.grad, gradient, atol=1e-5)


def test_another_text_before_it_changes_nothing(adapted):
    """The neighbour's ids change, the loss of the second example does not."""
    second = example([5, 6, 7], {1, 2})
    losses = [
        token_loss_sum(adapted, pack([example(first, set()), second], torch.device("cpu"))).item()
        for first in ([9, 9, 9], [1, 2, 3])
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
