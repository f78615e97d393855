"""A prompt of one's own, without a benchmark: one turn, nothing is executed, nobody judges.

What a user brings is a text, and any reply is an action: the reply itself. Samples are inputs: the
user's own, and held-out ones that a model made up and no training sees (`gcd.internalize` writes
both into the folder `data_path`). Whether an episode "succeeds" says only that there was a reply;
how near it comes to the prompted teacher's is for `gcd.internalize` to say. A prompt with tools, or
with an environment that answers, is a task of its own: docs/add-a-task.md.
"""

import random
from pathlib import Path
from typing import Literal, Self

from gcd.core.interfaces import Environment, Wording
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import Action, Conversation, Message, SkippedSample, write_records
from gcd.core.records import read_records as read
from gcd.core.task_settings import SplitSettings, TaskSettings
from gcd.tasks.custom.inputs import OWN, SYNTHESISED, Input, read_inputs

WORDING = Wording(
    problem="messages",
    agent="an assistant",
    environment="the person who writes to the assistant",
    environment_opening="",
)


class Settings(TaskSettings):
    """`data_path` is the folder of the inputs (`gcd.tasks.custom.inputs`).

    `demonstrations` are shown when new inputs are made up: the user's, then those that the prompt
    demonstrates. `test` are the user's and the held-out ones, less those that are `development`.
    """

    data: Literal["files"]
    backend: Literal["embedded"]


def write_samples(settings: Settings, out: Path) -> list[SkippedSample]:
    """Write demonstrations.jsonl, development.jsonl and test.jsonl; each is at most its `count`.

    An input stands in one of development and test, and a demonstration in none of the held-out
    ones. The user's own are shown as demonstrations, and tested: they are not trained on.

    Raises:
        UserError: a file of inputs is missing or malformed.
    """
    folder = Path(settings.data_path)
    own, held_out = read_inputs(folder / OWN), read_inputs(folder / SYNTHESISED)
    shown = distinct([*own, *demonstrated(settings.prompt)])
    made = [one for one in distinct([*own, *held_out]) if one.source == "synthesised"]
    development, rest = split(made, settings.development)
    splits = {
        "demonstrations": split(shown, settings.demonstrations)[0],
        "development": development,
        "test": split(distinct([*own, *rest]), settings.test)[0],
    }
    for name, samples in splits.items():
        write_records(out / f"{name}.jsonl", samples)
    return []


def demonstrated(prompt: str) -> list[Input]:
    """The user turns of the prompt's own demonstrations."""
    path = Path("data/prompts", f"{prompt}.md")
    turns = [
        turn for turn in parse_prompt(read_prompt_text(path), str(path)) if turn.role == "user"
    ]
    return [
        Input(index=f"prompt-{number:03d}", source="prompt", text=turn.content)
        for number, turn in enumerate(turns)
    ]


def distinct(inputs: list[Input]) -> list[Input]:
    """The first of those that say the same."""
    return list({one.problem: one for one in reversed(inputs)}.values())[::-1]


def split(inputs: list[Input], settings: SplitSettings) -> tuple[list[Input], list[Input]]:
    """`count` of the inputs, drawn by the seed where there are more, and the rest; in their order.

    The user's own are taken before synthesised ones.
    """
    stream = random.Random(settings.seed)
    drawn = sorted(inputs, key=lambda one: (one.source == "synthesised", stream.random()))
    chosen = {one.index for one in drawn[: settings.count]}
    return (
        [one for one in inputs if one.index in chosen],
        [one for one in inputs if one.index not in chosen],
    )


def read_samples(path: Path) -> list[Input]:
    """Raises UserError naming the first bad line."""
    return read(path, Input)


def is_problem(text: str) -> bool:
    """Any text is an input."""
    return bool(text.strip())


def first_message(problem: str) -> str:
    """The input as it is."""
    return problem


def parse_action(reply: str) -> Action | None:
    """The whole reply; silence is no action."""
    text = reply.strip()
    return Action(kind="reply", content=text) if text else None


def is_final(action: Action) -> bool:
    """One turn."""
    return True


class OneTurn:
    """An input that waits for its reply; satisfies `interfaces.Environment`."""

    def __init__(self, sample: Input) -> None:
        self.messages: Conversation = [Message(role="user", content=sample.text)]
        self.status = "running"
        self.score = 0.0
        self.measures: dict[str, float] = {}
        self.details = {"backend": "embedded", "source": sample.source}
        self.error: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was started."""

    def step(self, reply: str) -> str | None:
        """Any reply ends it."""
        replied = parse_action(reply) is not None
        self.status = "completed" if replied else "agent invalid action"
        self.score = float(replied)
        return None


def start(sample: Input, settings: Settings) -> Environment:
    """The input's environment, to be entered as a context manager."""
    return OneTurn(sample)
