"""`gcd` that begins with an earlier version's adapter: for an edited prompt (not in the paper).

Loss, data and steps are those of `gcd`; only where LoRA begins differs. The adapter lies in the
repository's folder, and its checksum is a param: another adapter is another run.
"""

import hashlib
from pathlib import Path
from typing import Any

from peft import load_peft_weights, set_peft_model_state_dict
from torch import Tensor

from gcd.agents import load_adapted_agent
from gcd.core.base_model import load_base
from gcd.core.errors import UserError
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Name
from gcd.data import read_pseudo_data
from gcd.training.adapters import (
    conversation_term,
    fit_terms,
    prompt_generation_term,
    sft_weight,
)
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from gcd.training.settings import PromptGenerationSettings

WEIGHTS = "adapter_model.safetensors"


class Settings(PromptGenerationSettings):
    """The joint loss; the folder of the adapter to begin with, and the SHA-256 of its weights."""

    adapter: Name
    sha256: str


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["gcd_warm_start"]


def begin_with(model: Any, settings: Settings) -> None:
    """Put the adapter's weights into the LoRA layers of `model`.

    Raises:
        UserError: the file is missing or another one than the params say, or its weights are not
            those of this model with this rank.
    """
    folder = Path(settings.adapter)
    try:
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"{folder / WEIGHTS}: cannot be read ({error.strerror}); expected the adapter that "
            "`methods.gcd_warm_start.adapter` names."
        ) from error
    if digest != settings.sha256:
        raise UserError(
            f"{folder / WEIGHTS}: SHA-256 is {digest}, `methods.gcd_warm_start.sha256` says "
            f"{settings.sha256}. Correct it, or put the adapter back."
        )
    weights = load_peft_weights(str(folder), device="cpu")
    try:
        result = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:  # another shape: another rank, or another model
        raise UserError(
            f"{folder}: not an adapter of this model with `train.lora.rank` as in params.yaml: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise UserError(
            f"{folder}: expected an adapter on all linear layers of this model; "
            f"{len(missing)} weights are missing, {len(result.unexpected_keys)} are not known."
        )


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter on into `out/adapter/`.

    Raises:
        UserError: see `begin_with`.
    """
    data = read_pseudo_data(task)
    base, tokenizer = load_base(params.model)
    weight = sft_weight(params.method, task)
    terms = [
        conversation_term(tokenizer, data, params, weight),
        prompt_generation_term(tokenizer, data, params.method, 1 - weight, params.seed),
    ]
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(base, params.train, four_bit=four_bit, seed=params.seed)
    begin_with(adapted, params.method)

    def save(weights: dict[str, Tensor]) -> None:
        save_adapter(adapted, weights, out / "adapter")

    fit_terms(adapted, terms, params, out, work, save)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
