"""SFT with the prompt in front, always or by a coin; inference without it (GenPI's baselines).

The prompt is read and is no label. Rows: `prompt_prepending_<share>` plays without the prompt, as
the paper has it; `prompt_prepending_<share>_with_prompt` is the same adapter behind the prompt.
"""

import random
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from gcd.agents import load_adapted_agent
from gcd.core.base_model import load_tokenizer
from gcd.core.chat import prompt_ids
from gcd.core.failures import WITH_PROMPT, by_itself, trained_row
from gcd.core.interfaces import Agent
from gcd.core.params import Params
from gcd.core.settings import Percentage, Section
from gcd.data import read_prompt, read_pseudo_data
from gcd.training.adapters import conversation_term, fit_adapter
from gcd.training.examples import prompted_examples
from gcd.training.losses import Example
from gcd.training.terms import Term, Visit


class Settings(Section):
    """`shares`: in how many percent of an example's visits it has the prompt in front."""

    shares: list[Percentage] = Field(min_length=1)


def row(share: int) -> str:
    """The row of the adapter that was trained with this share."""
    return f"prompt_prepending_{share}"


def rows(settings: Settings) -> list[str]:
    """Two for each share: without the prompt and with it."""
    return [name for share in settings.shares for name in (row(share), row(share) + WITH_PROMPT)]


def toss(prompted: list[Example], share: int, visits: list[Visit]) -> list[Example]:
    """Each example or, in `share` percent of the visits, the one at its place in `prompted`.

    The coin is drawn from the visit's stream, so that resuming changes nothing.
    """
    return [
        prompted[visit.place]
        if random.Random(f"{visit.stream}/prompt").random() * 100 < share
        else visit.example
        for visit in visits
    ]


def with_room(params: Params, prompt_tokens: int) -> Params:
    """`params` with micro-batches that have room for a prompt in front.

    Else no two examples share one, and each reads the prompt for itself (web browsing: 30 s a step
    in place of 17).
    """
    changed = copy(params)
    tokens = params.train.micro_batch_tokens + prompt_tokens
    changed.train = params.train.model_copy(update={"micro_batch_tokens": tokens})
    return changed


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train an adapter for each share into `out/<row>/adapter/`."""
    data = read_pseudo_data(task)
    room = len(prompt_ids(load_tokenizer(), data.prompt_messages))
    for share in params.method.shares:

        def terms(base: Any, tokenizer: Any, share: int = share) -> list[Term]:
            term = conversation_term(tokenizer, data, params, weight=1.0)
            behind = prompted_examples(
                tokenizer, data.prompt_messages, data.conversations, term.examples
            )
            return [replace(term, visit=partial(toss, behind, share))]

        with by_itself(out / row(share)):
            fit_adapter(with_room(params, room), terms, out / row(share), work / row(share))


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The adapted model, behind the prompt where the row says so."""
    trained = trained_row(row)
    prompt = read_prompt(task)[1] if trained != row else []
    return load_adapted_agent(params, folder / trained / "adapter", prompt, work)
