"""The HTTP calls of AgentBench's v0.2 controller, and the shapes of their answers.

Sources in AgentBench v0.2: src/server/task_controller.py, src/server/task_worker.py,
src/typings/, src/client/task.py.
"""

import time
from functools import cache
from typing import Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from gcd.core.errors import UserError
from gcd.core.records import Conversation, Message
from gcd.core.task_settings import ServerSettings

NOT_ACCEPTABLE = 406  # no such task, or no free worker
ALIVE = 0  # `WorkerStatus`
CONNECT_SECONDS = 10.0
Index = int | str
Parsed = TypeVar("Parsed")
_tls_context = cache(httpx.create_ssl_context)  # tens of milliseconds each


class HistoryItem(BaseModel):
    """A turn as the server writes it."""

    role: Literal["user", "agent"]
    content: str


class Output(BaseModel):
    """The state of a sample. `result` is the task's own, None while `status` is "running"."""

    index: Index | None = None
    status: str
    result: Any = None
    history: list[HistoryItem] | None = None

    @property
    def conversation(self) -> Conversation:
        """The history in our roles."""
        return [
            Message(role="assistant" if item.role == "agent" else "user", content=item.content)
            for item in self.history or []
        ]


class Answer(BaseModel):
    """What start_sample and interact answer."""

    session_id: int
    output: Output


class Worker(BaseModel):
    """A process that runs up to `capacity` samples at a time."""

    capacity: int
    current: int
    status: int


class Workers(BaseModel):
    """The processes of one task."""

    workers: dict[str, Worker]


class Mind2WebMetrics(BaseModel):
    """What calculate_overall answers for Mind2Web, in percent."""

    element_acc: float
    action_f1: float
    step_sr: float


class RefusedError(Exception):
    """The server answered, but not with what it was asked for."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(detail if code is None else f"{code}: {detail}")
        self.code = code


class Server:
    """The controller's calls.

    All raise RefusedError where it refuses or does not answer in time, and UserError where it
    cannot be reached or does not speak the protocol.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings

    def indices(self) -> list[Index]:
        """The samples of the task."""
        name = self.settings.task
        try:
            return self._call(list[Index], "GET", "get_indices", params={"name": name})
        except RefusedError as error:
            raise UserError(
                f"{self.settings.address}: no task {name!r} there ({error})."
            ) from error

    def free_workers(self) -> int:
        """How many samples of the task could be started now."""
        try:
            tasks = self._call(dict[str, Workers], "GET", "list_workers")
        except RefusedError as error:
            raise UserError(
                f"{self.settings.address}: no AgentBench controller there ({error}); correct "
                "server.address, which ends in /api."
            ) from error
        here = tasks[self.settings.task].workers.values() if self.settings.task in tasks else []
        return sum(worker.capacity - worker.current for worker in here if worker.status == ALIVE)

    def start(self, index: Index) -> Answer:
        """Start a sample; waits for a free worker, in the end with a UserError."""
        settings = self.settings
        for attempt in range(settings.retries + 1):
            if attempt:
                time.sleep(settings.retry_seconds)
            try:
                return self._call(
                    Answer, "POST", "start_sample", json={"name": settings.task, "index": index}
                )
            except RefusedError as error:
                if error.code != NOT_ACCEPTABLE:
                    raise
                if "does not exist" in str(error):
                    raise UserError(
                        f"{settings.address}: no task {settings.task!r} there ({error}); "
                        "start its workers, or correct server.task."
                    ) from error
        raise UserError(
            f"{settings.address}: no free worker for {settings.task} after {settings.retries} more "
            f"tries, {settings.retry_seconds:g} s apart. Start more workers, end other clients, or "
            "raise server.retries."
        )

    def interact(self, session: int, response: dict[str, str]) -> Answer:
        """Send a reply ({"status": "normal", "content": …}) or its lack ({"status": …})."""
        body = {"session_id": session, "agent_response": response}
        return self._call(Answer, "POST", "interact", json=body)

    def cancel(self, session: int) -> None:
        """End a session."""
        self._call(dict[str, Any], "POST", "cancel", json={"session_id": session})

    def overall(self, kind: type[Parsed], results: list[dict[str, Any]]) -> Parsed:
        """The task's own metrics over results ({"index", "status", "result", "history"})."""
        body = {"name": self.settings.task, "results": results}
        return self._call(kind, "POST", "calculate_overall", json=body)

    def _call(self, kind: type[Parsed], method: str, name: str, **content: Any) -> Parsed:
        url = f"{self.settings.address.rstrip('/')}/{name}"
        timeout = httpx.Timeout(self.settings.turn_seconds, connect=CONNECT_SECONDS)
        try:
            response = httpx.request(method, url, timeout=timeout, verify=_tls_context(), **content)
        except httpx.ReadTimeout as error:
            seconds = self.settings.turn_seconds
            raise RefusedError(None, f"no answer to {name} within {seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(
                f"{url}: the AgentBench server cannot be reached ({error}). Start its controller "
                "and workers, or correct server.address; then run the stage again."
            ) from error
        if response.status_code != httpx.codes.OK:
            raise RefusedError(response.status_code, " ".join(response.text.split())[:300])
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise UserError(
                f"{url}: not an answer of AgentBench v0.2 ({where}: {first['msg']}; got "
                f"{response.text[:80]!r}). Correct server.address."
            ) from error
