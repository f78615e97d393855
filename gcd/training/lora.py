"""LoRA on all linear layers of a base model."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn

from gcd.core.launch import sharded
from gcd.core.settings import TrainSettings
from gcd.training.lora_layer import LoraLinear
from gcd.training.packed_attention import attend_within_examples


def attach_lora(model: Any, settings: TrainSettings, *, four_bit: bool, seed: int) -> Any:
    """`model` with fresh LoRA layers on all its linear layers; only they are trainable.

    It then expects packed rows (see `losses.Batch`).

    Raises:
        UserError: see `attend_within_examples`.
    """
    attend_within_examples(model)
    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # Norms and embeddings in fp32. Not under FSDP: it divides what has one type, that of the model.
    if four_bit and not sharded():
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if not four_bit:
        config._register_custom_module({nn.Linear: LoraLinear})
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(seed)
    return get_peft_model(model, config)
