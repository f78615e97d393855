"""Causal attention within each example of a packed row, without a mask.

The general way is a mask of [N, N] for a row of N tokens, whose fused kernel computes every
product and throws most of them away: with five examples in a row, nine of ten. Here every example
is a causal call of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from gcd.core.shared_prefix import require_plain_attention

NAME = "packed"


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    dropout: float = 0.0,
    *,
    lengths: list[int],
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention in each of the examples that follow one another in a row.

    Args:
        query: [1, H, N, d].
        key, value: [1, K, N, d].
        attention_mask: None; `lengths` takes its place.
        lengths: of the examples, their sum is N.

    Returns:
        [1, N, H, d], and None in place of attention weights.
    """
    queries, keys, values = (torch.split(part, lengths, dim=2) for part in (query, key, value))
    made = [
        scaled_dot_product_attention(
            one,
            keys[place],
            values[place],
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        for place, one in enumerate(queries)
    ]
    return torch.cat(made, dim=2).transpose(1, 2), None


def no_mask(*_: Any, **__: Any) -> None:
    """`packed_attention` needs none."""


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, no_mask)


def attend_within_examples(base: Any) -> None:
    """Let the following forward passes of a causal language model expect packed rows.

    Raises:
        UserError: see `require_plain_attention`.
    """
    require_plain_attention(base)
    base.set_attn_implementation(NAME)
