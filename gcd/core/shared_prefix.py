"""Attention of a whole batch to one shared prompt whose keys and values are stored once.

A cache that is copied per sequence makes batched decoding memory-bound. Here every query attends
to the prompt's keys (one matrix product for the whole batch) and to its own suffix; the two partial
softmaxes are merged by their log-sum-exp, which is exact.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from gcd.core.errors import UserError

NAME = "shared_prefix"
Prefix = list[tuple[Tensor, Tensor]]  # per layer: keys and values, each [key heads, P, head size]


def _read_suffix(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    prefix: tuple[Tensor, Tensor],
    scale: float,
) -> Tensor:
    """Many queries: the prompt's keys in front of the suffix's, through the fused kernel."""
    batch, length = query.shape[0], query.shape[2]
    keys = torch.cat([prefix[0].expand(batch, -1, -1, -1), key], dim=2)
    values = torch.cat([prefix[1].expand(batch, -1, -1, -1), value], dim=2)
    open_prefix = mask.new_zeros(batch, 1, length, prefix[0].shape[1])
    full_mask = torch.cat([open_prefix, mask[..., : key.shape[2]]], dim=-1)
    return scaled_dot_product_attention(
        query, keys, values, attn_mask=full_mask, scale=scale, enable_gqa=True
    ).transpose(1, 2)


def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over `module.prefix` (keys and values, each [K, P, d]) and the suffix.

    Args:
        query: [B, H, L, d].
        key, value: [B, K, S, d], the suffix only.
        attention_mask: additive, [B, 1, L, S].

    Returns:
        [B, L, H, d], and None in place of attention weights.
    """
    prefix_key, prefix_value = module.prefix
    batch, heads, length, size = query.shape
    if length > 1:
        return _read_suffix(query, key, value, attention_mask, module.prefix, scaling), None
    key_heads = key.shape[1]
    grouped = query.reshape(batch, key_heads, heads // key_heads, size)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scaling
    scores = scores + attention_mask[..., : key.shape[2]]
    suffix_lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    suffix_out = torch.matmul(torch.exp(scores - suffix_lse), value)
    flat = grouped.transpose(0, 1).reshape(key_heads, -1, size)
    prefix_scores = torch.matmul(flat, prefix_key.transpose(1, 2)) * scaling
    prefix_lse = torch.logsumexp(prefix_scores, dim=-1, keepdim=True)
    prefix_out = torch.matmul(torch.exp(prefix_scores - prefix_lse), prefix_value)

    def per_sequence(flat_values: Tensor) -> Tensor:
        return flat_values.view(key_heads, batch, heads // key_heads, -1).transpose(0, 1)

    weight = torch.sigmoid(per_sequence(prefix_lse) - suffix_lse)  # the prompt's share of softmax
    out = weight * per_sequence(prefix_out) + (1 - weight) * suffix_out
    return out.reshape(batch, 1, heads, size), None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, eager_mask)


def attention_modules(base: Any) -> list[Any]:
    """The self-attention module of each layer of a Llama-type causal language model."""
    return [layer.self_attn for layer in base.model.layers]


@torch.inference_mode()
def compute_prefix(base: Any, prompt_ids: list[int]) -> Prefix:
    """Keys and values of the prompt, computed once.

    Raises:
        UserError: the model's attention is of a kind (sliding windows, soft caps) that the shared
            form does not reproduce.
    """
    base.set_attn_implementation("sdpa")
    ids = torch.tensor([prompt_ids], device=base.device)
    cache = base.model(input_ids=ids, use_cache=True).past_key_values
    prefix = [(layer.keys[0].contiguous(), layer.values[0].contiguous()) for layer in cache.layers]
    probe = ids[:, -4:]
    plain = base(input_ids=probe, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    attach_prefix(base, prefix)
    positions = torch.arange(4, device=base.device)[None] + len(prompt_ids)
    shared = base(input_ids=probe, position_ids=positions, use_cache=True, logits_to_keep=1).logits
    # fp32 differs by about 3e-5, bf16 by about 0.1; a wrong attention kind differs by whole units.
    tolerance = 1e-3 if plain.dtype == torch.float32 else 0.5
    if not torch.allclose(plain, shared, atol=tolerance, rtol=0):
        raise UserError(
            f"{type(base).__name__}: attention to a shared prompt differs from the model's own by "
            f"{(plain - shared).abs().max():.2g} in the logits; this model type is not supported."
        )
    return prefix


def attach_prefix(base: Any, prefix: Prefix) -> None:
    """Let the following forward passes attend to `prefix`."""
    base.set_attn_implementation(NAME)
    for module, pair in zip(attention_modules(base), prefix, strict=True):
        module.prefix = pair


def detach_prefix(base: Any) -> None:
    """Back to plain attention without a prompt."""
    base.set_attn_implementation("sdpa")
