"""Attention of a whole batch to one shared prompt whose keys and values are stored once.

A cache that is copied per sequence makes batched decoding memory-bound. In a decoding step every
query attends to the prompt's keys (one matrix product for the whole batch) and to its own suffix;
the two partial softmaxes are merged by their log-sum-exp, which is exact. What is read before the
first step comes as one packed row without padding, see `Reading`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import _disable_current_modes
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from gcd.core.errors import UserError
from gcd.core.sessions import Layers

NAME = "shared_prefix"


@dataclass(frozen=True)
class Prefix:
    """What stands in front of all conversations: a prompt's token ids, and keys and values.

    A trained prefix stands in for the prompt: the same ids, and keys and values of its own, as
    many as it has positions.
    """

    ids: list[int]
    layers: Layers

    def __len__(self) -> int:
        """Positions that it takes."""
        return int(self.layers[0][0].shape[1])


@dataclass(frozen=True)
class Reading:
    """Texts that follow one another in a row of N tokens.

    Attributes:
        lengths: of the texts, their sum is N.
        past: keys and values of what precedes each text, after the shared prompt, if any.
    """

    lengths: list[int]
    past: list[Layers | None]


def lower_right(queries: int, keys: int) -> Tensor:
    """The causal mask of the last `queries` of `keys` tokens.

    torch cannot make its mask where its counter of FLOPs listens.
    """
    with _disable_current_modes():
        return causal_lower_right(queries, keys)


def _read(
    module: Any, query: Tensor, key: Tensor, value: Tensor, reading: Reading, scale: float
) -> Tensor:
    """Each text attends to the prompt, its own past and itself; [1, N, H, d]."""
    own = zip(*(torch.split(part[0], reading.lengths, dim=1) for part in (key, value)), strict=True)
    made = []
    queries = torch.split(query, reading.lengths, dim=2)
    for one, pair, past in zip(queries, own, reading.past, strict=True):
        parts = [module.prefix, past and past[module.layer_idx], pair]
        keys, values = (
            torch.cat([part[place] for part in parts if part], dim=1)[None] for place in (0, 1)
        )
        mask = lower_right(one.shape[2], keys.shape[2])
        made.append(
            scaled_dot_product_attention(
                one, keys, values, attn_mask=mask, scale=scale, enable_gqa=True
            )
        )
    return torch.cat(made, dim=2).transpose(1, 2)


def _attend(scores: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of `scores` [..., n, S] times `value` [..., S, d], and the log-sum-exp of each row.

    As `logsumexp` and `softmax`, but with one exponential for both.
    """
    highest = scores.amax(dim=-1, keepdim=True)
    weights = torch.exp(scores - highest)
    total = weights.sum(dim=-1, keepdim=True)
    return torch.matmul(weights, value) / total, highest + total.log()


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    reading: Reading | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over `module.prefix` (keys and values, each [K, P, d], or None) and the suffix.

    Args:
        query: [B, H, 1, d] in a decoding step; [1, H, N, d] with `reading`.
        key, value: [B, K, S, d], the suffix only; [1, K, N, d].
        attention_mask: additive, [B, 1, 1, S]; None with `reading`.

    Returns:
        [B, 1, H, d] or [1, N, H, d], and None in place of attention weights.
    """
    if reading:
        return _read(module, query, key, value, reading, scaling), None
    batch, heads, _one, size = query.shape
    key_heads = key.shape[1]
    grouped = query.reshape(batch, key_heads, heads // key_heads, size)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    out, suffix_lse = _attend(scores, value)
    if module.prefix:
        flat = grouped.transpose(0, 1).reshape(key_heads, -1, size)
        prefix_scores = torch.matmul(flat, module.prefix[0].transpose(1, 2)) * scaling
        prefix_out, prefix_lse = _attend(prefix_scores, module.prefix[1])

        def per_sequence(flat_values: Tensor) -> Tensor:
            return flat_values.view(key_heads, batch, heads // key_heads, -1).transpose(0, 1)

        weight = torch.sigmoid(per_sequence(prefix_lse) - suffix_lse)  # the prompt's share
        out = weight * per_sequence(prefix_out) + (1 - weight) * out
    return out.reshape(batch, 1, heads, size), None


def step_mask(**arguments: Any) -> Tensor | None:
    """The mask of a decoding step; a packed row has none, it would be [N, N]."""
    mask: Tensor | None = eager_mask(**arguments) if arguments["q_length"] == 1 else None
    return mask


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, step_mask)


def require_plain_attention(base: Any) -> None:
    """Raise UserError unless every token of the model attends to all before it, and no cap is on.

    Our forms of attention (here, and of packed rows in training) reproduce that and no other.
    """
    kinds = set(getattr(base.config, "layer_types", None) or ["full_attention"])
    capped = getattr(base.config, "attn_logit_softcapping", None)
    if kinds != {"full_attention"} or capped:
        raise UserError(
            f"{type(base).__name__}: expected full attention in every layer, found "
            f"{', '.join(sorted(kinds))}{', with capped logits' if capped else ''}; this model "
            "type is not supported."
        )


def attention_modules(base: Any) -> list[Any]:
    """The self-attention module of each layer of a Llama-type causal language model."""
    return [layer.self_attn for layer in base.model.layers]


@torch.inference_mode()
def compute_prefix(base: Any, prompt_ids: list[int]) -> Prefix:
    """Keys and values of the prompt, computed once.

    Raises:
        UserError: the model's attention is of a kind that the shared form does not reproduce.
    """
    base.set_attn_implementation("sdpa")
    ids = torch.tensor([prompt_ids], device=base.device)
    cache = base.model(input_ids=ids, use_cache=True).past_key_values
    layers = [(layer.keys[0].contiguous(), layer.values[0].contiguous()) for layer in cache.layers]
    prefix = Prefix(prompt_ids, layers)
    probe = ids[:, -4:]
    plain = base(input_ids=probe, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    attach_prefix(base, prefix)
    positions = torch.arange(probe.shape[1], device=base.device)[None] + len(prompt_ids)
    reading = Reading([probe.shape[1]], [None])
    shared = base(input_ids=probe, position_ids=positions, reading=reading, logits_to_keep=1).logits
    # fp32 differs by about 3e-5, bf16 by about 0.1; a wrong attention kind differs by whole units.
    tolerance = 1e-3 if plain.dtype == torch.float32 else 0.5
    if not torch.allclose(plain, shared, atol=tolerance, rtol=0):
        raise UserError(
            f"{type(base).__name__}: attention to a shared prompt differs from the model's own by "
            f"{(plain - shared).abs().max():.2g} in the logits; this model type is not supported."
        )
    return prefix


def attach_prefix(base: Any, prefix: Prefix | None) -> None:
    """Let the following forward passes attend to `prefix` (None: to no prompt).

    Raises UserError, see `require_plain_attention`.
    """
    require_plain_attention(base)
    base.set_attn_implementation(NAME)
    for number, module in enumerate(attention_modules(base)):
        module.prefix = prefix.layers[number] if prefix else None
