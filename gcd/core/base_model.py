"""Load the base model: plain or 4-bit, with or without an adapter."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from gcd.core.errors import UserError
from gcd.core.launch import local_rank, sharded
from gcd.core.settings import ModelSettings
from gcd.core.timings import loading

BASE = Path("models/base")


def device() -> torch.device:
    """This process's GPU if there is one."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def base_location() -> dict[str, Any]:
    """Where `prepare_model` left the base model: arguments of `from_pretrained`.

    Raises:
        UserError: there is no prepared model.
    """
    try:
        description = json.loads((BASE / "model.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(f"{BASE}: no prepared model. Run `dvc repro prepare_model`.") from error
    if description["source"] == "hub":
        return {
            "pretrained_model_name_or_path": description["id"],
            "revision": description["revision"],
            "local_files_only": True,
        }
    return {"pretrained_model_name_or_path": str(BASE)}


def location(name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `base`, a local folder, or the hub's owner/name@revision.

    Raises:
        UserError: it is `base`, and there is no prepared model.
    """
    if name == "base":
        return base_location()
    if Path(name).is_dir():
        return {"pretrained_model_name_or_path": name}
    repository, _, revision = name.partition("@")
    return {"pretrained_model_name_or_path": repository, "revision": revision}


def load_tokenizer() -> Any:
    """The base model's tokenizer. Raises UserError if there is no prepared model."""
    return AutoTokenizer.from_pretrained(**base_location())


def load_base(settings: ModelSettings) -> tuple[Any, Any]:
    """The base model, as `load_model` loads it."""
    return load_model(settings, "base")


def load_model(settings: ModelSettings, name: str) -> tuple[Any, Any]:
    """A model in evaluation mode, on the GPU if there is one, and its tokenizer.

    Args:
        settings: quantization and number format.
        name: see `location`.

    Raises:
        UserError: the files are missing, truncated or not a causal language model.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also write to all fresh memory, 4 % of a training step, in case someone reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    dtype = getattr(torch, settings.dtype)
    quantization = None
    if settings.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # The same bytes: FSDP divides only what looks like numbers of the model's own type.
            bnb_4bit_quant_storage=dtype if sharded() else torch.uint8,
        )
    place = location(name)
    with loading():
        try:
            tokenizer = AutoTokenizer.from_pretrained(**place)
            model = AutoModelForCausalLM.from_pretrained(
                **place, dtype=dtype, quantization_config=quantization, device_map=str(device())
            )
        except Exception as error:  # safetensors, json, OS and hub errors share no base class
            remedy = f"Delete {BASE} and run `dvc repro`." if name == "base" else "Check its name."
            raise UserError(
                f"The model {place['pretrained_model_name_or_path']} cannot be loaded: "
                f"{' '.join(str(error).split())[:300]} {remedy}"
            ) from error
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit":
            # On a CPU with AVX-512 for bf16, bitsandbytes would round to bf16 where no gradient is
            # asked for, and leave the weights in a form that no gradient comes back through.
            layer.support_avx512bf16_for_cpu = False
    return model.eval(), tokenizer


def attach_adapter(model: Any, adapter: Path) -> Any:
    """The peft model of a base model and the adapter in a folder; UserError if it has none."""
    from peft import PeftModel  # 1.5 s of imports that the stages without an adapter do without

    with loading():
        try:
            return PeftModel.from_pretrained(model, str(adapter)).eval()
        except Exception as error:  # as above
            raise UserError(
                f"The adapter {adapter} cannot be loaded: {' '.join(str(error).split())[:300]} "
                "Delete it and run `dvc repro`."
            ) from error


def load_with_adapter(settings: ModelSettings, adapter: Path) -> tuple[Any, Any, str, int]:
    """The base model with a LoRA adapter: merged, except into 4-bit weights.

    Returns:
        model, tokenizer, deployment ("merged adapter" or "unmerged adapter"), adapter parameters.
    """
    base, tokenizer = load_base(settings)
    model = attach_adapter(base, adapter)
    trained = sum(value.numel() for name, value in model.named_parameters() if "lora_" in name)
    if settings.quantization == "nf4":
        return model, tokenizer, "unmerged adapter", trained
    with loading():
        return model.merge_and_unload().eval(), tokenizer, "merged adapter", trained
