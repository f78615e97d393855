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

from gcd.core.sessions import Layers
from gcd.core.shared_prefix import lower_right, require_plain_attention

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
    shared: int,
    lengths: list[int],
    prefix: Layers | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention in each of the examples of a packed row (`losses.Batch`).

    Args:
        query: [1, H, N, d].
        key, value: [1, K, N, d].
        attention_mask: None; `shared` and `lengths` take its place.
        shared: tokens at the start of the row that all examples begin with.
        lengths: of the examples' rests, which follow; with `shared` their sum is N.
        prefix: keys and values that every token attends to before its example, per layer.

    Returns:
        [1, N, H, d], and None in place of attention weights.
    """
    parts = (query, key, value)
    starts = [part[:, :, :shared] for part in parts]
    rests = zip(*(torch.split(part[:, :, shared:], lengths, dim=2) for part in parts), strict=True)
    made: list[Tensor] = []
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": True}
    for rest in rests:
        one, keys, values = (torch.cat(pair, dim=2) for pair in zip(starts, rest, strict=True))
        if prefix:
            before = [part[None].to(one.dtype) for part in prefix[module.layer_idx]]
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        # A short start attends to itself anew in every example, which is no mask and few products;
        # one that is longer than the rest, a prompt, in the first example only.
        anew = not made or shared < rest[0].shape[2]
        asking = one if anew else rest[0]
        if anew and not prefix:
            out = scaled_dot_product_attention(asking, keys, values, is_causal=True, **options)
        else:
            mask = lower_right(asking.shape[2], keys.shape[2])
            out = scaled_dot_product_attention(asking, keys, values, attn_mask=mask, **options)
        made.append(out[:, :, shared:] if made and anew else out)
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
