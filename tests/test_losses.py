"""Hand-computed values and invariances of the losses."""

import math

import pytest
import torch

from gcd.training.lora import attach_lora
from gcd.training.lora_layer import LoraLinear
from gcd.training.losses import Example, pack, token_loss_sum
from gcd.training.packed_attention import attend_within_examples
from tests.test_training import SETTINGS


@pytest.fixture
def adapted(model):
    return attach_lora(model, SETTINGS, four_bit=False, seed=0).eval()


def example(ids, labels):
    return Example(ids, [place in labels for place in range(len(ids))])


def dense_loss(model, item):
    """By the book: transformers' own attention, logits at every position, minus log softmax."""
    model.get_base_model().set_attn_implementation("eager")
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
    batch = pack(items, torch.device("cpu"))
    loss = token_loss_sum(adapted, batch)
    expected = sum(dense_loss(adapted, item) for item in items)
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_equal_those_of_the_dense_loss(model, dropout):
    """Against peft's own layers and autograd through all logits, more than a block of them.

    With dropout in the settings the layers are peft's; in evaluation it draws nothing.
    """
    lora = SETTINGS.lora.model_copy(update={"dropout": dropout})
    settings = SETTINGS.model_copy(update={"lora": lora})
    adapted = attach_lora(model, settings, four_bit=False, seed=0).eval()
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, and with it every gradient of A
            torch.nn.init.normal_(weight, std=0.02)
    weights = [value for value in adapted.parameters() if value.requires_grad]
    items = [example([k % 300 for k in range(3, 203)], set(range(20, 200))), example([7, 8], {1})]
    token_loss_sum(adapted, pack(items, torch.device("cpu"))).backward()
    ours = [value.grad.clone() for value in weights]
    adapted.zero_grad()
    for layer in adapted.modules():
        if isinstance(layer, LoraLinear):
            layer.__class__ = LoraLinear.__base__
    sum(dense_loss(adapted, item) for item in items).backward()
    for gradient, value in zip(ours, weights, strict=True):
        assert torch.allclose(gradient, value.grad, atol=1e-4, rtol=1e-3)
        assert value.grad.abs().max() > 1e-3


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
    for first in (example([9, 9, 9], {2}), example([1, 2, 3], {2})):
        alone, both = (
            token_loss_sum(adapted, pack(items, torch.device("cpu"))).item()
            for items in ([first], [first, second])
        )
        assert both - alone == pytest.approx(float(dense_loss(adapted, second)), abs=1e-4)
        attend_within_examples(adapted.get_base_model())


def test_a_row_reads_once_what_all_begin_with_and_nothing_after_the_last_label():
    """By hand: three examples begin with 1 2; the third is no longer than that."""
    items = [
        example([1, 2, 3, 4, 5, 6], {1, 3, 4}),
        example([1, 2, 7, 8], {2, 3}),
        example([1, 2, 9], {2}),
    ]
    batch = pack(items, torch.device("cpu"))
    assert batch.ids.tolist() == [[1, 2, 3, 4, 7]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert (batch.shared, batch.lengths) == (2, [2, 1, 0])
    assert batch.places.tolist() == [0, 2, 3, 1, 4, 1]
    assert batch.labels.tolist() == [2, 4, 5, 7, 8, 9]


@pytest.mark.parametrize(
    ("others", "shared"),
    [
        ([], 4),
        ([([5, 6, 7, 1, 2, 3], {1, 2})], 2),
        ([([5, 6, 8], {1, 2}), ([5, 6, 7, 8], {1, 2})], 2),
        # Longer than the rests, as a prompt is: the others' rests attend to it behind a mask.
        ([([5, 6, 7, 1, 2], {3, 4}), ([5, 6, 7, 3, 2], {2, 4})], 3),
    ],
)
def test_what_is_shared_learns_from_all(adapted, others, shared):
    """Loss and gradients of the row are the sums of the examples alone, by the book."""
    items = [example([5, 6, 7, 8, 9], {1, 2, 4}), *(example(*other) for other in others)]
    batch = pack(items, torch.device("cpu"))
    assert batch.shared == shared
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    weights = [value for value in adapted.parameters() if value.requires_grad]
    loss = token_loss_sum(adapted, pack(items, torch.device("cpu")))
    loss.backward()
    ours = [value.grad.clone() for value in weights]
    adapted.zero_grad()
    expected = sum(dense_loss(adapted, item) for item in items)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    for gradient, value in zip(ours, weights, strict=True):
        assert torch.allclose(gradient, value.grad, atol=1e-4, rtol=1e-3)
