"""What the trained methods share: the terms of their losses, and a run from the base to files."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from gcd.core.base_model import load_base
from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.params import FILE, Params
from gcd.core.records import write_text
from gcd.core.shared_prefix import compute_prefix
from gcd.data import PseudoData
from gcd.training.checkpoints import save_adapter
from gcd.training.divergence import choose_divergence, imitation_loss_sums, with_teacher_states
from gcd.training.examples import (
    behind,
    conversation_examples,
    first_exchanges,
    prompt_generation_examples,
    prompted_examples,
)
from gcd.training.lora import attach_lora
from gcd.training.losses import Example, token_loss_sum
from gcd.training.settings import DivergenceSettings, PromptGenerationSettings
from gcd.training.terms import Term
from gcd.training.trainer import train

MakeTerms = Callable[[Any, Any], list[Term]]  # from base model and tokenizer


def fit_adapter(params: Params, make_terms: MakeTerms, out: Path, work: Path) -> None:
    """Train a LoRA adapter into `out/adapter/`; see `fit_terms` for what else is written.

    Args:
        params: with the sections seed, model, train and the task's training.
        make_terms: gets the base model as it was loaded, before LoRA is attached.
        out, work: see `trainer.train`.
    """
    base, tokenizer = load_base(params.model)
    terms = make_terms(base, tokenizer)
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(base, params.train, four_bit=four_bit, seed=params.seed)

    def save(weights: dict[str, Tensor]) -> None:
        save_adapter(adapted, weights, out / "adapter")

    fit_terms(adapted, terms, params, out, work, save)


def fit_terms(
    model: Any,
    terms: list[Term],
    params: Params,
    out: Path,
    work: Path,
    save: Callable[[dict[str, Tensor]], None],
) -> None:
    """Train `model` on `terms`: `loss.csv`, `training.json` and `examples.json` in `out`.

    Args:
        model, save: see `trainer.train`.
        terms: see `trainer.train`.
        params: with the sections seed, train and the task's training.
        out, work: see `trainer.train`.
    """
    counts = {
        term.name: {
            "examples": len(term.examples),
            "truncated": term.truncated,
            "labels": sum(example.label_count for example in term.examples),
            "weights": term.weights,
        }
        for term in terms
    }
    for name, count in counts.items():
        logging.info("%s: %s", name, json.dumps(count))
    train(
        model,
        terms,
        params.train,
        epochs=params.training.epochs,
        seed=params.seed,
        work=work,
        out=out,
        save=save,
    )
    write_text(out / "examples.json", json.dumps(counts, indent=2, sort_keys=True) + "\n")


def conversation_term(
    tokenizer: Any, data: PseudoData, params: Params, weight: float, name: str = "sft"
) -> Term:
    """Imitate the prompted teacher: SFT on the assistant turns of the pseudo conversations.

    Of their first ones alone where `train.conversations` is single_turn.
    """
    conversations = data.conversations
    if params.train.conversations == "single_turn":
        conversations = first_exchanges(conversations)
    made = conversation_examples(tokenizer, conversations, params.train.max_length)
    return Term(
        weights={name: weight},
        examples=made.examples,
        truncated=made.truncated,
        batch_size=params.training.batch_size,
        every=1,
        loss_sums=token_loss_sum,
    )


def examples_behind_prompt(
    tokenizer: Any, data: PseudoData, examples: list[Example]
) -> tuple[list[int], list[Example]]:
    """The prompt's ids, and `examples` of all conversations as they follow them."""
    ids = prompt_ids(tokenizer, data.prompt_messages)
    prompted = prompted_examples(tokenizer, data.prompt_messages, data.conversations, examples)
    return ids, [behind(example, len(ids)) for example in prompted]


def imitation_term(
    base: Any,
    tokenizer: Any,
    data: PseudoData,
    params: Params,
    weight: float,
    settings: DivergenceSettings,
) -> Term:
    """SFT with `weight`, and the divergence to the prompted teacher on the same labels.

    Args:
        base: the base model; the teacher, which is read once, before anything is trained.
        tokenizer, data, params: as everywhere.
        weight: of SFT.
        settings: kind and weight of the divergence.
    """
    plain = conversation_term(tokenizer, data, params, weight)
    ids, following = examples_behind_prompt(tokenizer, data, plain.examples)
    examples = with_teacher_states(base, compute_prefix(base, ids), plain.examples, following)
    return Term(
        weights={**plain.weights, "divergence": settings.weight},
        examples=examples,
        truncated=plain.truncated,
        batch_size=plain.batch_size,
        every=1,
        loss_sums=imitation_loss_sums(choose_divergence(settings)),
    )


def sft_weight(settings: PromptGenerationSettings, task: str) -> float:
    """λ of a task; raises UserError if it is given by task, and not for this one."""
    weights = settings.sft_weight
    if not isinstance(weights, dict):
        return weights
    if task not in weights:
        raise UserError(
            f"{FILE}: `sft_weight` is given by task, and not for {task!r}: there are "
            f"{', '.join(weights)}. Add it, or give one number for all tasks."
        )
    return weights[task]


def prompt_generation_term(
    tokenizer: Any, data: PseudoData, settings: PromptGenerationSettings, weight: float, seed: int
) -> Term:
    """Generate the prompt and the reason (PG; paper, section 3.3)."""
    made = prompt_generation_examples(
        tokenizer, data.prompt, data.pairs, data.reasons, settings, seed
    )
    return Term(
        weights={"prompt_generation": weight},
        examples=made.examples,
        truncated=made.truncated,
        batch_size=settings.pg_batch_size,
        every=settings.pg_every,
        loss_sums=token_loss_sum,
    )
