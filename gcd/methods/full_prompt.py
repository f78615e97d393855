"""The prompted teacher: the base model with the whole prompt in its context. The upper bound."""

from pathlib import Path

from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.records import write_text
from gcd.core.settings import Section
from gcd.data import read_prompt


class Settings(Section):
    """No settings: `full_prompt: {}`."""


def rows(settings: Settings) -> list[str]:
    """One row, named like the method."""
    return ["full_prompt"]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Nothing is trained: the method is the prompt itself."""
    write_text(out / "prompt.md", read_prompt(task)[0] + "\n")


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model behind the task's prompt."""
    # `fit` needs no model: without this import up there it starts 6 seconds faster.
    from gcd.agents import load_base_agent

    return load_base_agent(params, read_prompt(task)[1], work)
