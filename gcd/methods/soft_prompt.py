"""Prompt tuning (arXiv 2104.08691): vectors in place of the prompt, read like embeddings.

They begin as embeddings of the prompt's tokens, and learn by SFT on the prompted teacher's
conversations. The control for compressors that write such vectors (`icae`).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field

from gcd.agents import load_prefix_agent
from gcd.core.base_model import load_base
from gcd.core.failures import by_itself
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Count, Positive, Section
from gcd.data import read_prompt, read_pseudo_data
from gcd.training.adapters import conversation_term, examples_behind_prompt
from gcd.training.losses import token_loss_sum
from gcd.training.prefixes import (
    attach_soft_prompt,
    behind_slots,
    fit_prefix,
    read_soft_prompt,
    require_room,
    spread,
    with_learning_rate,
)


class Settings(Section):
    """A row for each of `slots`: how many vectors, at most as many as the prompt has tokens."""

    slots: list[Count] = Field(min_length=1)
    learning_rate: Positive


def row(slots: int) -> str:
    """The row of so many vectors."""
    return f"soft_prompt_{slots}"


def rows(settings: Settings) -> list[str]:
    """One for each number of slots."""
    return [row(slots) for slots in settings.slots]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train so many vectors each into `out/<row>/adapter/`.

    Raises:
        UserError: more vectors than the prompt has tokens.
    """
    settings: Settings = params.method
    changed = with_learning_rate(params, settings.learning_rate)
    data = read_pseudo_data(task)
    for slots in settings.slots:
        base, tokenizer = load_base(params.model)
        plain = conversation_term(tokenizer, data, params, weight=1.0)
        ids, following = examples_behind_prompt(tokenizer, data, plain.examples)
        require_room("methods.soft_prompt.slots", settings.slots, ids)
        term = replace(
            plain,
            examples=[behind_slots(example, slots) for example in following],
            loss_sums=partial(token_loss_sum, read=read_soft_prompt),
        )
        model = attach_soft_prompt(
            base,
            [ids[place] for place in spread(slots, len(ids))],
            checkpointing=params.train.gradient_checkpointing,
        )
        with by_itself(out / row(slots)):
            fit_prefix(model, term, changed, out / row(slots), work / row(slots))


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model behind the trained vectors."""
    return load_prefix_agent(params, folder / row / "adapter", read_prompt(task)[1], work)
