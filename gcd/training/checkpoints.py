"""A training run's state on disk: the same files from one process, from copies, from parts.

torch's distributed state dict collects what FSDP divided, and names everything as in the plain
model, so that a run may continue on another number of processes.
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from gcd.core.launch import rank
from gcd.core.records import write_bytes, write_text

WHOLE = StateDictOptions(
    full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False
)


def trained_weights(model: torch.nn.Module, names: set[str]) -> dict[str, Tensor]:
    """The weights of a prepared model that are trained, whole, on the CPU; all processes call.

    Args:
        model: as accelerate prepared it.
        names: of the trained weights, before it was prepared.

    Returns:
        by name; empty on all processes but the first.
    """
    state = get_model_state_dict(model, options=WHOLE)
    return {
        name: value for name, value in state.items() if name in names and isinstance(value, Tensor)
    }


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    names: set[str],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint, whole or not at all; every process has to call.

    Args:
        path: of the file.
        model, optimizer: as accelerate prepared them.
        names: see `trained_weights`.
        progress: what else the run has to remember; plain Python.
    """
    state = {
        "trained": trained_weights(model, names),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=WHOLE),
        "progress": progress,
    }
    if rank() > 0:
        return
    # Through memory: on a full disk torch's own writer reports a broken file, not a full disk.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put model and optimizer into the state of a checkpoint; returns its `progress`.

    Every process has to call, and reads the file.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    set_model_state_dict(model, state["trained"], options=WHOLE)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=WHOLE)
    progress: dict[str, Any] = state["progress"]
    return progress


def plain_config(config: dict[str, Any]) -> str:
    """The text of peft's adapter_config.json: the same on every machine and in every run.

    peft writes `target_modules` in the random order of a Python set, and an absolute base path.
    """
    plain = {
        key: sorted(value) if isinstance(value, list) else value for key, value in config.items()
    }
    plain["base_model_name_or_path"] = "models/base"
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"


def save_adapter(model: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Save LoRA weights so that equal weights give equal files; the first process does.

    Args:
        model: the peft model.
        weights: of `adapter_weights`, by name in `model`.
        folder: becomes an adapter's folder in peft's format.
    """
    if rank() > 0:
        return
    model.save_pretrained(str(folder), state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    write_text(file, plain_config(json.loads(file.read_text(encoding="utf-8"))))
