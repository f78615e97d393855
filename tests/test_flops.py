"""FLOPs of training as torch runs them, against the closed form, on a CPU."""

import pytest
import torch

from gcd.cost import Architecture
from gcd.training.flops import count_flops
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, pack, token_loss_sum
from tests.test_training import SETTINGS


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_step_equals_the_closed_form(model, dropout):
    """Forward, and back to activations and LoRA; attention's two products there, five back.

    Whatever the LoRA layer is: ours that adds in place, or peft's own.
    """
    settings = SETTINGS.model_copy(
        update={"lora": SETTINGS.lora.model_copy(update={"dropout": dropout})}
    )
    adapted = attach_lora(model, settings, four_bit=False, seed=0).train()
    adapter = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    config = model.config
    sizes = Architecture(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        intermediate_size=config.intermediate_size,
        vocabulary_size=config.vocab_size,
    )
    tokens, labels = 40, 10
    example = Example(list(range(tokens + 1)), [False] * (tokens + 1 - labels) + [True] * labels)
    with count_flops() as counter:
        token_loss_sum(adapted, pack([example], torch.device("cpu"))).backward()
    products = 2 * tokens * (2 * sizes.linear_weights + 3 * adapter)
    attention = 3.5 * sizes.pair_flops * tokens**2
    head = 4 * labels * sizes.head_weights
    # The first layer's input needs no gradient: its query, key and value products give none.
    hidden, values = config.hidden_size, config.num_key_value_heads * config.head_dim
    first = hidden * (config.num_attention_heads * config.head_dim + 2 * values)
    first += 3 * settings.lora.rank * hidden
    assert counter.get_total_flops() == products + attention + head - 2 * tokens * first
