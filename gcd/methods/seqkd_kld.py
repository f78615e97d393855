"""SeqKD with token-wise distillation: SFT, plus the divergence to the prompted teacher.

The teacher is the same base model with the prompt in its context and without the adapter. Both
terms are means over the same labels, from one reading of a batch.
"""

from pathlib import Path
from typing import Any

from gcd.agents import load_adapted_agent
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Section
from gcd.data import read_pseudo_data
from gcd.training.adapters import fit_adapter, imitation_term
from gcd.training.flops import add_flops, count_flops
from gcd.training.settings import DivergenceSettings
from gcd.training.terms import Term


class Settings(Section):
    """The divergence; SFT's weight is 1."""

    divergence: DivergenceSettings


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["seqkd_kld"]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`."""
    data = read_pseudo_data(task)
    counter = count_flops()  # of reading the teacher

    def terms(base: Any, tokenizer: Any) -> list[Term]:
        divergence = params.method.divergence
        with counter:
            return [imitation_term(base, tokenizer, data, params, 1.0, divergence)]

    fit_adapter(params, terms, out, work)
    add_flops(out, counter)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
