"""The base model without the prompt. The lower bound."""

from pathlib import Path

from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.records import write_text
from gcd.core.settings import Section


class Settings(Section):
    """No settings: `no_prompt: {}`."""


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["no_prompt"]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Nothing is trained, and there is nothing to keep but this note."""
    write_text(out / "README.md", "The base model as it is, without a prompt.\n")


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model with an empty prompt."""
    # `fit` needs no model: without this import up there it starts 6 seconds faster.
    from gcd.agents import load_base_agent

    return load_base_agent(params, [], work)
