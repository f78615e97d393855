"""A trained prefix, out of an adapter of peft's prompt learning: keys and values, or slots.

peft's CARTRIDGE holds the keys and values themselves, its PROMPT_TUNING vectors ("slots") that are
read like the embeddings of tokens. Both end as a `Prefix` that stands in for the prompt.
"""

from pathlib import Path
from typing import Any

import torch

from gcd.core.base_model import attach_adapter, load_base
from gcd.core.chat import prompt_ids
from gcd.core.records import Conversation
from gcd.core.sessions import Layers
from gcd.core.settings import ModelSettings
from gcd.core.shared_prefix import Prefix


def cache_layers(cache: Any) -> Layers:
    """Keys and values of a transformers cache with one sequence."""
    return [(layer.keys[0].contiguous(), layer.values[0].contiguous()) for layer in cache.layers]


@torch.inference_mode()
def prefix_layers(model: Any) -> Layers:
    """What conversations attend to behind the trained prefix of a peft model.

    Slots are read once for it. In the type of the base model.
    """
    learnt = model.get_prompt(batch_size=1)
    base = model.get_base_model()
    if not isinstance(learnt, torch.Tensor):
        return cache_layers(learnt)
    base.set_attn_implementation("sdpa")
    read = base.model(inputs_embeds=learnt.to(base.dtype), use_cache=True)
    return cache_layers(read.past_key_values)


def load_with_prefix(
    settings: ModelSettings, adapter: Path, prompt: Conversation
) -> tuple[Any, Any, Prefix, int]:
    """The base model, and the trained prefix that stands in for `prompt`.

    Returns:
        model, tokenizer, prefix, trained parameters.

    Raises:
        UserError: the base model or the adapter cannot be loaded.
    """
    base, tokenizer = load_base(settings)
    model = attach_adapter(base, adapter)
    prefix = Prefix(prompt_ids(tokenizer, prompt), prefix_layers(model))
    encoder = model.prompt_encoder[model.active_adapter]
    frozen = sum(value.numel() for name, value in encoder.named_parameters() if "frozen" in name)
    trained = sum(value.numel() for value in encoder.parameters()) - frozen
    return base, tokenizer, prefix, trained
