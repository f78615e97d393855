"""Real samples of AgentBench, started, played and judged by its v0.2 server.

`prepare` takes the samples and the benchmark's own prompt from the server (`fetch`), and
`run_episodes` plays them (`served`). Every row then uses that prompt: `full_prompt` carries exactly
the server's messages, and they are stripped from what the server sends.
"""

import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Self, cast

from gcd.acting.agentbench_api import Index, Mind2WebMetrics, Output, RefusedError, Server
from gcd.acting.history_window import is_whole, without_prompt
from gcd.core.errors import UserError
from gcd.core.interfaces import Task
from gcd.core.records import Conversation, Record, read_records
from gcd.core.task_settings import ServerSettings, TaskSettings

CONTEXT_LIMIT = "agent context limit"
_log = logging.getLogger(__name__)


class ServerSample(Record):
    """A sample that the server has: its `key` there. Its problem is told when it is started."""

    key: Index
    task: str

    @property
    def index(self) -> str:
        """The key as text."""
        return str(self.key)

    @property
    def problem(self) -> str:
        """Where to find it."""
        return f"Sample {self.key} of the server's {self.task}"

    @property
    def groups(self) -> dict[str, str]:
        """None: the server does not tell."""
        return {}


class ServerEnvironment:
    """A sample being played by the server; satisfies `interfaces.Environment`."""

    def __init__(self, sample: ServerSample, settings: ServerSettings) -> None:
        self._sample = sample
        self._server = Server(settings)
        self._session: int | None = None
        self._heard = 0.0
        self._status = "running"
        self.messages: Conversation = []
        self.score = 0.0
        self.measures: dict[str, float] = {}
        self.details = {"backend": "agentbench", "server_task": settings.task}
        self.error: str | None = None

    @property
    def status(self) -> str:
        """AgentBench's status. Whoever sets it to "agent context limit" has no reply to give."""
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        self._status = status
        if status == CONTEXT_LIMIT and self._session is not None:
            self._interact({"status": CONTEXT_LIMIT})

    def __enter__(self) -> Self:
        """Start the sample; status "unknown" where the server refuses that."""
        try:
            answer = self._server.start(self._sample.key)
        except RefusedError as error:
            self._status, self.error = "unknown", f"the server did not start it: {error}"
            return self
        self._session = answer.session_id
        try:
            self._take(answer.output)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the session, if it is not over. Never raises: the server ends idle ones itself."""
        if self._session is None:
            return
        try:
            self._server.cancel(self._session)
        except (RefusedError, UserError) as error:
            _log.warning("sample %s: session not cancelled: %s", self._sample.key, error)
        self._session = None

    def step(self, reply: str) -> str | None:
        """Send the reply; returns the server's next message, None when the episode is over."""
        self._interact({"status": "normal", "content": reply})
        return self.messages[-1].content if self._status == "running" else None

    def _interact(self, response: dict[str, str]) -> None:
        """Send, and take what comes; a session that is lost is status "task error"."""
        assert self._session is not None
        waited = time.monotonic() - self._heard
        try:
            output = self._server.interact(self._session, response).output
        except RefusedError as error:
            self._status, self.error = "task error", f"the server gave up: {error}"
            limit = self._server.settings.turn_seconds
            if waited > limit:
                self.error += (
                    f" (the reply took {waited:.0f} s, and it ends a session after {limit:g} s: "
                    "lower run_episodes.live_environments)"
                )
            self.__exit__()
            return
        self._take(output)

    def _take(self, output: Output) -> None:
        self._heard = time.monotonic()
        self._status = output.status
        if output.status != "running":
            self._session = None
            self._judge(output)
            return
        history = output.conversation
        self.messages = without_prompt(history, self._server.settings.prompt_messages)
        if not self.messages or self.messages[-1].role != "user":
            raise UserError(
                f"The server sent {len(history)} messages, which is not its prompt of "
                f"{self._server.settings.prompt_messages} and a conversation that ends in a user "
                "turn: correct server.prompt_messages."
            )

    def _judge(self, output: Output) -> None:
        """The score, out of the task's own result; Mind2Web's labels are with the server."""
        result = output.result
        if not isinstance(result, dict):  # a traceback
            self.error = " ".join(str(result).split())[-300:]
        elif "final_prediction" in result:
            record = output.model_dump() | {"index": self._sample.key, "history": None}
            try:
                metrics = self._server.overall(Mind2WebMetrics, [record])
            except RefusedError as error:
                self._status, self.error = "task error", f"the server did not judge it: {error}"
                return
            self.score = metrics.step_sr / 100
            self.measures = {
                "element_accuracy": metrics.element_acc / 100,
                "action_f1": metrics.action_f1 / 100,
            }
        elif "reward" in result:  # WebShop
            self.score = float(result["reward"])
        else:  # OS interaction
            self.score = float(bool(result.get("result", False)))
            self.error = result.get("error")
        if self._status == "unknown" and self.error is None:
            self.error = "the server could not play it, and gave no reason"


def fetch(settings: TaskSettings) -> tuple[list[ServerSample], Conversation]:
    """The server's first `test.count` samples, and the benchmark's own prompt.

    The prompt is read off the first sample whose history is whole; its session is cancelled.

    Raises:
        UserError: no server, no such task, or no sample that shows a whole prompt.
    """
    task, count = settings.server.task, settings.server.prompt_messages
    server = Server(settings.server)
    keys = server.indices()[: settings.test.count]
    for key in keys:
        history = _first_history(server, key)
        if len(history) > count and is_whole(history):
            return [ServerSample(key=key, task=task) for key in keys], history[:count]
    raise UserError(
        f"{settings.server.address}: none of {len(keys)} samples of {task} begins with a prompt of "
        f"{count} messages: correct server.prompt_messages, or see the server's log."
    )


def _first_history(server: Server, key: Index) -> Conversation:
    """What the server sends first; nothing where it cannot start the sample."""
    history: Conversation = []
    try:
        answer = server.start(key)
        history = answer.output.conversation
        if answer.output.status == "running":
            server.cancel(answer.session_id)
    except RefusedError as error:
        _log.warning("sample %s: %s", key, error)
    return history


def served(task: Task) -> Task:
    """`task`, but its test samples are the server's, and the server plays them."""

    def read_samples(path: Path) -> list[ServerSample]:
        return read_records(path, ServerSample)

    def start(sample: ServerSample, settings: TaskSettings) -> ServerEnvironment:
        return ServerEnvironment(sample, settings.server)

    replaced = {"read_samples": read_samples, "start": start}
    return cast(Task, SimpleNamespace(**{**vars(task), **replaced}))


def live_episodes(settings: ServerSettings, wanted: int) -> int:
    """How many episodes to play at a time: no more than the server has free workers for."""
    return max(1, min(wanted, Server(settings).free_workers()))
