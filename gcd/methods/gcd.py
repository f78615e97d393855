"""Generative Context Distillation: λ · SFT + (1 - λ) · PG (arXiv 2411.15927, section 3.3).

The student imitates the prompted teacher's conversations, and generates, from an input and the
outputs with and without the prompt, the prompt itself and the reason why it changed the output.
"""

from pathlib import Path
from typing import Any

from gcd.agents import load_adapted_agent
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.data import PseudoData, read_pseudo_data
from gcd.training.adapters import (
    conversation_term,
    fit_adapter,
    prompt_generation_term,
    sft_weight,
)
from gcd.training.settings import PromptGenerationSettings
from gcd.training.terms import Term


class Settings(PromptGenerationSettings):
    """The joint loss, nothing else."""


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["gcd"]


def loss_terms(tokenizer: Any, data: PseudoData, task: str, params: Params) -> list[Term]:
    """λ · SFT and (1 - λ) · PG, for params with the sections seed, train, training and method."""
    weight = sft_weight(params.method, task)
    return [
        conversation_term(tokenizer, data, params, weight),
        prompt_generation_term(tokenizer, data, params.method, 1 - weight, params.seed),
    ]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`."""
    data = read_pseudo_data(task)

    def terms(base: Any, tokenizer: Any) -> list[Term]:
        return loss_terms(tokenizer, data, task, params)

    fit_adapter(params, terms, out, work)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
