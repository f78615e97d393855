"""Generative Context Distillation: λ · SFT + (1 - λ) · PG (arXiv 2411.15927, section 3.3).

The student imitates the prompted teacher's conversations, and generates, from an input and the
outputs with and without the prompt, the prompt itself and the reason why it changed the output.
"""

from pathlib import Path
from typing import Any

from gcd.agents import load_adapted_agent
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Count, Section, Share
from gcd.data import PseudoData, read_pseudo_data
from gcd.training.adapters import conversation_term, fit_adapter
from gcd.training.examples import prompt_generation_examples
from gcd.training.losses import token_loss_sum
from gcd.training.trainer import Term


class Settings(Section):
    """`sft_weight` is λ; `pg_batch_size` PG examples join every `pg_every`-th optimizer step.

    `pg_max_length` cuts PG targets at so many tokens; null trains the whole prompt and reason.
    """

    sft_weight: Share
    pg_batch_size: Count
    pg_every: Count
    pg_max_length: Count | None


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["gcd"]


def loss_terms(tokenizer: Any, data: PseudoData, params: Params) -> list[Term]:
    """λ · SFT and (1 - λ) · PG, for params with the sections train, training and method."""
    settings: Settings = params.method
    generation = prompt_generation_examples(
        tokenizer, data.prompt, data.pairs, data.reasons, settings.pg_max_length
    )
    weight = settings.sft_weight
    return [
        conversation_term(tokenizer, data.conversations, params, weight=weight),
        Term(
            name="prompt_generation",
            weight=1 - weight,
            examples=generation.examples,
            truncated=generation.truncated,
            batch_size=settings.pg_batch_size,
            every=settings.pg_every,
            loss_sum=token_loss_sum,
        ),
    ]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`."""
    data = read_pseudo_data(task)
    fit_adapter(params, lambda tokenizer: loss_terms(tokenizer, data, params), out, work)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", work)
