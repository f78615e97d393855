"""Trained prefixes: peft's prompt learning in front of a frozen base, in place of the prompt.

A cartridge (peft's CARTRIDGE) is keys and values, a soft prompt (peft's PROMPT_TUNING) vectors that
are read like embeddings. Both take the place of the whole prompt: what follows it follows them.
"""

from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import (
    CartridgeConfig,
    PromptTuningConfig,
    get_peft_model,
    initialize_kv_prefix_from_past_key_values,
)
from safetensors.torch import save
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from gcd.core.errors import UserError
from gcd.core.launch import rank
from gcd.core.params import FILE, Params
from gcd.core.records import write_bytes, write_text
from gcd.core.sessions import Layers
from gcd.core.shared_prefix import Prefix, compute_prefix
from gcd.core.trained_prefix import cache_layers
from gcd.training.adapters import fit_terms
from gcd.training.checkpoints import plain_config
from gcd.training.losses import Batch, Example, read_row
from gcd.training.packed_attention import attend_within_examples
from gcd.training.terms import Term

ENCODER = "prompt_encoder.default."  # in the names of a peft model's parameters


def with_learning_rate(params: Params, rate: float) -> Params:
    """`params`, but for the learning rate: a prefix wants another one than LoRA."""
    changed = copy(params)
    changed.train = params.train.model_copy(update={"learning_rate": rate})
    return changed


def require_room(key: str, slots: list[int], prompt: list[int]) -> None:
    """Raise UserError if a prefix would be longer than the prompt that it replaces."""
    if max(slots) > len(prompt):
        raise UserError(
            f"{FILE}: `{key}`: {max(slots)} slots for a prompt of {len(prompt)} tokens; give at "
            "most as many as it has."
        )


def spread(slots: int, length: int) -> list[int]:
    """`slots` of `length` places at equal distances, the first and the last among them."""
    return [round(slot * (length - 1) / max(1, slots - 1)) for slot in range(slots)]


def kept(slots: int, length: int) -> list[int]:
    """The places of the prompt whose keys and values a cartridge of `slots` begins with.

    The first one, which all attend to whatever it is, and the last ones. Mean KL to the prompted
    teacher before training, in nats a token, on 14 conversations of OS interaction (prompt: 789
    tokens; none of it: 1.95), for 16, 64 and 256 slots: these places 1.67, 1.06 and 0.07; the last
    ones only 1.98, 0.92 and 0.21; at equal distances 1.80, 1.48 and 0.45; the first ones, which
    peft takes, 1.91, 1.58 and 0.80. Where the last ones only begin lower (64 slots), they learn
    slower: docs/log.md. Without moving the keys (`shorten`), at equal distances: 3.11,
    3.61 and 3.47.
    """
    return [0, *range(length - slots + 1, length)]


def shorten(base: Any, prompt: Prefix, slots: int) -> Layers:
    """Keys and values of the prompt at `kept` places, moved up to positions 0 … slots - 1.

    A key is turned by its position (RoPE, arXiv 2104.09864), and what follows the prefix counts
    from its end: a key that moves from p to q is turned by q - p more.

    Raises:
        UserError: the model turns its keys in another way. In the first layer they depend on token
            and position alone: those of the kept tokens, read by themselves, are compared.
    """
    places = torch.tensor(kept(slots, len(prompt)), device=base.device)
    moved = torch.arange(slots, device=base.device) - places
    rotary = base.model.rotary_emb
    layers = []
    for keys, values in prompt.layers:
        cosine, sine = rotary(keys, moved[None])
        _, turned = apply_rotary_pos_emb(keys[None, :, places], keys[None, :, places], cosine, sine)
        layers.append((turned[0] / rotary.attention_scaling, values[:, places]))
    first = layers[0][0].float()
    expected = compute_prefix(base, [prompt.ids[place] for place in places.tolist()])
    # Another rotation is wrong by the size of a key; bf16 by less than a hundredth of it.
    if not torch.allclose(first, expected.layers[0][0].float(), atol=0.05 * first.abs().max()):
        raise UserError(
            f"{type(base).__name__}: keys at new positions differ from the model's own; cartridges "
            "of this model type need as many slots as the prompt has tokens."
        )
    return layers


def attach_cartridge(base: Any, layers: Layers, frozen: int) -> Any:
    """A peft model whose keys and values begin as `layers`; only they are trained.

    Args:
        base: the base model; it then expects packed rows (see `losses.Batch`).
        layers: keys and values of every slot.
        frozen: how many of the first slots keep theirs.

    Raises:
        UserError: see `attend_within_examples`.
    """
    attend_within_examples(base)
    slots = layers[0][0].shape[1]
    config = CartridgeConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=slots, num_frozen_tokens=min(frozen, slots)
    )
    model = get_peft_model(base, config)
    cache = [(keys[None], values[None]) for keys, values in layers]
    initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)
    return model


def read_behind_cartridge(model: Any, batch: Batch) -> Tensor:
    """`read_row` behind the trained keys and values."""
    layers = cache_layers(model.get_prompt(batch_size=1))
    return read_row(model.get_base_model(), batch, prefix=layers)


def attach_soft_prompt(base: Any, ids: list[int], *, checkpointing: bool) -> Any:
    """A peft model whose slots begin as the embeddings of `ids`; only they are trained.

    Args:
        base: the base model; it then expects packed rows (see `losses.Batch`).
        ids: a token for each slot.
        checkpointing: see params.yaml `train.gradient_checkpointing`.

    Raises:
        UserError: see `attend_within_examples`.
    """
    attend_within_examples(base)
    if checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(ids))
    model = get_peft_model(base, config)
    with torch.no_grad():
        start = base.get_input_embeddings()(torch.tensor(ids, device=base.device))
        model.prompt_encoder["default"].embedding.weight.copy_(start)
    return model


def read_soft_prompt(model: Any, batch: Batch) -> Tensor:
    """`read_row` of a batch whose examples begin with the slots (`behind_slots`)."""
    return read_row(model.get_base_model(), batch, vectors=model.get_prompt(batch_size=1)[0])


def behind_slots(example: Example, slots: int) -> Example:
    """`example` with learnt vectors in front of it, none of them a label."""
    ids = [-1 - slot for slot in range(slots)]
    return Example(ids + example.ids, [False] * slots + example.supervised)


def encoder_weights(model: Any) -> dict[str, Tensor]:
    """The slots' weights by name in the model, whole and on the CPU; the frozen ones first."""
    return {
        name: value.detach().cpu().clone()
        for name, value in model.named_parameters()
        if name.startswith(ENCODER)
    }


def save_prefix(model: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Save a prefix in peft's format; equal weights give equal files; the first process does.

    In the base model's type: peft casts to it whatever it reads.

    Args:
        model: the peft model.
        weights: see `encoder_weights`.
        folder: becomes an adapter's folder.
    """
    if rank() > 0:
        return
    slots = torch.cat(list(weights.values())).to(model.get_base_model().dtype)
    config = {**model.peft_config["default"].to_dict(), "inference_mode": True}
    write_bytes(folder / "adapter_model.safetensors", save({"prompt_embeddings": slots}))
    write_text(folder / "adapter_config.json", plain_config(config))


def fit_prefix(model: Any, term: Term, params: Params, out: Path, work: Path) -> None:
    """Train a prefix on one term: `out/adapter/` in peft's format, and what `fit_terms` writes.

    Args:
        model: from `attach_cartridge` or `attach_soft_prompt`.
        term: its reading is that of `model`.
        params: with the sections seed, train and the task's training.
        out, work: see `trainer.train`.
    """
    start = encoder_weights(model)  # of the frozen slots, before FSDP divides parameters in place

    def save_trained(weights: dict[str, Tensor]) -> None:
        save_prefix(model, {**start, **weights}, out / "adapter")

    fit_terms(model, [term], params, out, work, save_trained)
