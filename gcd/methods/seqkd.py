"""Sequence-level knowledge distillation: SFT on the prompted teacher's conversations.

The joint loss of `gcd` at λ = 1.
"""

from pathlib import Path
from typing import Any

from gcd.agents import load_adapted_agent
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Section
from gcd.data import read_pseudo_data
from gcd.training.adapters import conversation_term, fit_adapter
from gcd.training.terms import Term


class Settings(Section):
    """No settings: `seqkd: {}`."""


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["seqkd"]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train the adapter into `out/adapter/`."""
    data = read_pseudo_data(task)

    def terms(base: Any, tokenizer: Any) -> list[Term]:
        return [conversation_term(tokenizer, data, params, weight=1.0)]

    fit_adapter(params, terms, out, work)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, without a prompt."""
    return load_adapted_agent(params, folder / "adapter", [], work)
