"""The two contracts of the repository: what a task is, and what a method is.

A task is a package in `gcd/tasks/`, a method a module in `gcd/methods/`; its key in params.yaml
is its name. Modules satisfy these protocols; there is no base class and no registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from pydantic import BaseModel

from gcd.core.errors import UserError
from gcd.core.records import Action, Conversation, SkippedSample
from gcd.core.timings import loading

if TYPE_CHECKING:
    from torch import Tensor

    from gcd.core.decoding import Sampling
    from gcd.core.params import Params
    from gcd.core.sessions import Sessions


@dataclass(frozen=True)
class Wording:
    """What synthesis must say about a task: full phrases that go into its requests."""

    problem: str  # what a user brings, plural: "problems for a Linux command line"
    agent: str  # "an agent that works in a Linux shell"
    environment: str  # "the Linux operating system"
    environment_opening: str  # how every line of the environment begins; its turn is prefilled so


class Environment(Protocol):
    """One running sample. A context manager: leaving it ends everything that it started."""

    # What the agent reads next, without its prompt; ends in a user turn. A list of its own every
    # time: never changed in place.
    messages: Conversation
    status: str  # "running" until the episode ends, then AgentBench's status
    score: float  # in [0, 1], 0.0 while running
    measures: dict[str, float]  # the parts of the score, the same names in every sample of a task
    details: dict[str, str]  # how the sample is played and judged, e.g. {"backend": "embedded"}
    error: str | None  # why the sample could not start or broke

    def __enter__(self) -> Environment: ...
    def __exit__(self, *exception: object) -> None: ...
    def step(self, reply: str) -> str | None:
        """Act on the agent's reply. Returns the observation, None when the episode is over."""


class Sample(Protocol):
    """One task of a benchmark."""

    @property
    def index(self) -> str: ...
    @property
    def problem(self) -> str:
        """One line: what a user brings."""

    @property
    def groups(self) -> dict[str, str]:
        """Labels that results are broken down by; "tier" gets a success rate of its own."""


class Task(Protocol):
    """A package in `gcd/tasks/`."""

    Settings: type[BaseModel]  # its section of params.yaml, without defaults
    WORDING: Wording

    def write_samples(self, settings: BaseModel, out: Path) -> list[SkippedSample]:
        """Write `development.jsonl`, `test.jsonl` and `demonstrations.jsonl` into `out`.

        Returns the samples of the benchmark that cannot be played, each with its reason.
        """

    def read_samples(self, path: Path) -> list[Sample]: ...

    def is_problem(self, text: str) -> bool:
        """Whether an invented line has the form of a problem of this task."""

    def first_message(self, problem: str) -> str:
        """The user turn that brings `problem` to the agent."""

    def start(self, sample: Sample, settings: BaseModel) -> Environment: ...

    def parse_action(self, reply: str) -> Action | None:
        """The action in a reply, by the benchmark's own rule; None if there is none."""

    def is_final(self, action: Action) -> bool:
        """Whether `action` ends the conversation."""


@dataclass(frozen=True)
class Reply:
    """One generated turn. `context_tokens` excludes the agent's prompt (see `records.Turn`)."""

    text: str
    context_tokens: int
    reply_tokens: int
    complete: bool


@dataclass(frozen=True)
class ReadReply:
    """A reply that was given, as a model reads it.

    `ids` are its n tokens. `states` are last hidden states, [n + 1, d], on the CPU: state i is what
    the model predicts token i from, the last one what it predicts to follow.
    """

    ids: list[int]
    states: Tensor


class TextGenerator(Protocol):
    """Something that writes replies: a model in this process, or a server.

    A server counts all that it read, so its `Reply.context_tokens` include the prompt.
    """

    def generate(
        self,
        prompt: Conversation,
        conversations: list[Conversation],
        *,
        max_new_tokens: int,
        progress: str,
        sampling: Sampling | None = None,
        openings: list[str] | None = None,
        sessions: Sessions | None = None,
    ) -> list[Reply | None]:
        """One reply to each conversation behind `prompt`, in order; see `LanguageModel.generate`.

        Greedy without `sampling`. `openings` are texts that the replies are made to begin with.
        `sessions` are for conversations that go on turn by turn; a server does without.
        None where a conversation does not fit the context.
        """


class Agent(Protocol):
    """Something that answers conversations: a row of the results table, ready to act."""

    deployment: str
    prompt_tokens: int
    adapter_parameters: int
    bytes_to_ship: int

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        """One greedy reply to each conversation, in order; None where it does not fit."""

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        """The same with a limit of its own, apart from the episodes that are being played."""

    def read_replies(
        self, conversations: list[Conversation], replies: list[str]
    ) -> list[ReadReply]:
        """What it expects at every token of replies that are given to it, in order."""

    def log_probabilities(self, states: Tensor) -> Tensor:
        """What `states` [n, d] predict: log-probabilities [n, V], in fp32."""


class Method(Protocol):
    """A module in `gcd/methods/`."""

    Settings: type[BaseModel]  # its section of params.yaml, without defaults

    def rows(self, settings: BaseModel) -> list[str]:
        """The rows of the results table that this method fills."""

    def fit(self, task: str, params: Params, out: Path, work: Path) -> None:
        """Build the method for `task` into the folder `out`; `work` is for checkpoints."""

    def load_agent(self, row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
        """The agent of `row`, out of the `folder` that `fit` filled; `work` keeps replies."""


def _load(group: str, name: str) -> ModuleType:
    """The module gcd/<group>/<name>; raises UserError where there is none."""
    folder = Path(__file__).parents[1] / group
    known = sorted(path.stem for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    if name not in known:
        raise UserError(
            f"params.yaml: unknown key `{group}.{name}`; accepted, as files of gcd/{group}/: "
            f"{', '.join(known)}."
        )
    with loading():
        return import_module(f"gcd.{group}.{name}")


def load_task(name: str) -> Task:
    """The package gcd/tasks/<name>; raises UserError where there is none."""
    return cast(Task, _load("tasks", name))


def load_method(name: str) -> Method:
    """The module gcd/methods/<name>.py; raises UserError where there is none."""
    return cast(Method, _load("methods", name))
