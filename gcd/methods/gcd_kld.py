"""GCD with token-wise distillation: λ · SFT + (1 - λ) · PG + μ · divergence to the teacher.

Asks whether generating the prompt still helps where the student already sees the whole
distribution of the prompted teacher. Not in the paper.
"""

from pathlib import Path
from typing import Any

from gcd.agents import load_adapted_agent
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.data import read_pseudo_data
from gcd.training.adapters import (
    fit_adapter,
    imitation_term,
    prompt_generation_term,
    sft_weight,
)
from gcd.training.flops import add_flops, count_flops
from gcd.training.settings import DivergenceSettings, PromptGenerationSettings
from gcd.training.terms import Term


class Settings(PromptGenerationSettings):
    """The joint loss of `gcd`; `divergence.weight` is μ."""

    divergence: DivergenceSettings


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["gcd_kld"]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`."""
    data = read_pseudo_data(task)
    settings: Settings = params.method
    weight = sft_weight(settings, task)
    counter = count_flops()  # of reading the teacher

    def terms(base: Any, tokenizer: Any) -> list[Term]:
        with counter:
            imitation = imitation_term(base, tokenizer, data, params, weight, settings.divergence)
        return [
            imitation,
            prompt_generation_term(tokenizer, data, settings, 1 - weight, params.seed),
        ]

    fit_adapter(params, terms, out, work)
    add_flops(out, counter)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
