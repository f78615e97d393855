"""What the adapter methods share: load the base, attach LoRA, train on terms, save."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcd.core.language_model import load_base
from gcd.core.params import Params
from gcd.core.records import PseudoConversation, write_text
from gcd.training.examples import conversation_examples
from gcd.training.losses import token_loss_sum
from gcd.training.trainer import Term, attach_lora, train


def fit_adapter(
    params: Params, make_terms: Callable[[Any], list[Term]], out: Path, work: Path
) -> None:
    """Train an adapter into `out/adapter/`, with `out/loss.csv` and `out/examples.json`.

    Args:
        params: with the sections seed, model, train and the task's training.
        make_terms: from the tokenizer to the terms of the loss.
        out, work: see `trainer.train`.
    """
    model, tokenizer = load_base(params.model)
    terms = make_terms(tokenizer)
    four_bit = params.model.quantization == "nf4"
    adapted = attach_lora(model, params.train, four_bit=four_bit, seed=params.seed)
    counts = {
        term.name: {
            "examples": len(term.examples),
            "truncated": term.truncated,
            "labels": sum(example.label_count for example in term.examples),
            "weight": term.weight,
        }
        for term in terms
    }
    for name, count in counts.items():
        logging.info("%s: %s", name, json.dumps(count))
    train(
        adapted,
        terms,
        params.train,
        epochs=params.training.epochs,
        seed=params.seed,
        work=work,
        out=out,
    )
    write_text(out / "examples.json", json.dumps(counts, indent=2, sort_keys=True) + "\n")


def conversation_term(
    tokenizer: Any, conversations: list[PseudoConversation], params: Params, weight: float
) -> Term:
    """Imitate the prompted teacher: SFT on the assistant turns of the pseudo conversations."""
    made = conversation_examples(tokenizer, conversations, params.train.max_length)
    return Term(
        name="sft",
        weight=weight,
        examples=made.examples,
        truncated=made.truncated,
        batch_size=params.training.batch_size,
        every=1,
        loss_sum=token_loss_sum,
    )
