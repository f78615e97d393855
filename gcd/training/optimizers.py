"""AdamW, plain or with its state in pages that the GPU may lend to the host, and its schedule."""

import math
from typing import Any

import torch

from gcd.core.errors import UserError
from gcd.core.launch import sharded
from gcd.core.settings import TrainSettings


def make_optimizer(
    parameters: list[torch.nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """The optimizer that `train.optimizer` names, over `parameters`.

    Raises:
        UserError: a paged optimizer without a GPU, or under FSDP.
    """
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    if parameters[0].device.type != "cuda":
        raise UserError(
            f"train.optimizer: {settings.optimizer} moves its state between a GPU and the host, "
            "and there is no GPU here. Set it to adamw."
        )
    if sharded():
        raise UserError(
            f"train.optimizer: {settings.optimizer} keeps tables that FSDP cannot divide. Set it "
            "to adamw: its state is divided over the processes, and needs no pages."
        )
    import bitsandbytes  # 2 s of imports that the plain optimizer does without

    paged = {
        "paged_adamw_32bit": bitsandbytes.optim.PagedAdamW32bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    optimizer: torch.optim.Optimizer = paged[settings.optimizer](parameters, **options)
    return optimizer


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up, then a cosine to zero (the paper's schedule), for step 0 … total - 1."""
    warmup = round(total * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
