"""On-policy distillation after a warm start (OPCD, arXiv 2602.12275; not in the paper).

First the adapter is trained as `seqkd` or `gcd` train theirs, on the same data for as many steps.
Then the student answers for itself, without the prompt, and is drawn to what the prompted teacher
would have said in every place of its answers: see `gcd.training.on_policy`. From a cold start the
answers would be too bad to judge.
"""

import json
import logging
from pathlib import Path
from typing import Any, Literal

from peft import load_peft_weights, set_peft_model_state_dict
from torch import Tensor

from gcd.agents import load_adapted_agent
from gcd.core.base_model import load_base
from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.interfaces import Agent
from gcd.core.launch import sharded
from gcd.core.params import Params
from gcd.core.records import write_text
from gcd.core.shared_prefix import compute_prefix
from gcd.data import PseudoData, read_pseudo_data
from gcd.training.adapters import (
    conversation_term,
    fit_adapter,
    fit_terms,
    prompt_generation_term,
    sft_weight,
)
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from gcd.training.on_policy import Replies, draw_states, on_policy_term, turn_states
from gcd.training.prefixes import with_learning_rate
from gcd.training.settings import OnPolicySettings, PromptGenerationSettings
from gcd.training.terms import Term

WARM_START = "warm_start"


class Settings(OnPolicySettings):
    """`warm_start` says which row's training comes first; `joint_loss` is that of `gcd`."""

    warm_start: Literal["seqkd", "gcd"]
    joint_loss: PromptGenerationSettings


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["on_policy"]


def warm_start_terms(tokenizer: Any, data: PseudoData, task: str, params: Params) -> list[Term]:
    """The terms of the row that `warm_start` names."""
    settings: Settings = params.method
    if settings.warm_start == "seqkd":
        return [conversation_term(tokenizer, data, params, weight=1.0)]
    weight = sft_weight(settings.joint_loss, task)
    return [
        conversation_term(tokenizer, data, params, weight),
        prompt_generation_term(tokenizer, data, settings.joint_loss, 1 - weight, params.seed),
    ]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`; what the warm start left is in `out/warm_start/`.

    `out/loss.csv` is of the second phase, `out/training.json` counts both.

    Raises:
        UserError: under FSDP, or no conversation leaves room for a reply.
    """
    if sharded():
        raise UserError(
            "on_policy: the student answers while it is trained, and FSDP divides it. Train with "
            "configs/ddp.yaml."
        )
    data = read_pseudo_data(task)

    def terms(base: Any, tokenizer: Any) -> list[Term]:
        return warm_start_terms(tokenizer, data, task, params)

    fit_adapter(params, terms, out / WARM_START, work / WARM_START)
    fit_on_policy(data, params, out, work)
    count_both(out)


def fit_on_policy(data: PseudoData, params: Params, out: Path, work: Path) -> None:
    """Go on from the adapter in `out/warm_start/` for `steps` optimizer steps."""
    settings: Settings = params.method
    base, tokenizer = load_base(params.model)
    prefix = compute_prefix(base, prompt_ids(tokenizer, data.prompt_messages))
    room = base.config.max_position_embeddings - len(prefix) - settings.max_new_tokens
    longest = min(room, params.train.max_length)
    choices = [
        turn_states(tokenizer, data.prompt_messages, conversation, longest)
        for conversation in data.conversations
    ]
    logging.info("states: %d, of %d conversations", sum(map(len, choices)), len(choices))
    states = draw_states(choices, settings.steps * settings.batch_size, params.seed)
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(base, params.train, four_bit=four_bit, seed=params.seed)
    set_peft_model_state_dict(adapted, load_peft_weights(str(out / WARM_START / "adapter")))
    replies = Replies(adapted, tokenizer, prefix, states, settings, params.model.batch_tokens)

    def save(weights: dict[str, Tensor]) -> None:
        save_adapter(adapted, weights, out / "adapter")

    changed = with_learning_rate(params, settings.learning_rate)
    changed.training = params.training.model_copy(update={"epochs": 1})
    terms = [on_policy_term(replies, states, settings)]
    fit_terms(adapted, terms, changed, out, work, save)


def count_both(out: Path) -> None:
    """Add to `out/training.json` what the warm start took."""
    parts = [
        json.loads((folder / "training.json").read_text(encoding="utf-8"))
        for folder in (out / WARM_START, out)
    ]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    total["trainable_parameters"] = parts[0]["trainable_parameters"]
    write_text(out / "training.json", json.dumps(total, indent=2) + "\n")


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
