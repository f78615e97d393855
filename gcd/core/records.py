"""Everything that is written to disk as JSON Lines: one typed record a line.

The pseudo data that synthesis makes, and the episodes that agents play. Reading checks every line;
a bad one is a `UserError` that names the file and the line.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gcd.core.errors import UserError
from gcd.core.launch import rank

FULL_PROMPT = "full_prompt"  # the row of the prompted teacher, which the others are measured by


class Record(BaseModel):
    """A frozen record whose fields are all required and of exactly the stated type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


RecordT = TypeVar("RecordT", bound=Record)


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = list[Message]


class PseudoInput(Record):
    """A user input that the teacher invented from the prompt."""

    index: int
    text: str


class PairedOutput(Record):
    """One pseudo input, answered with the prompt (teacher) and without it (student)."""

    index: int
    pseudo_input: str
    teacher_output: str
    student_output: str


class Reason(Record):
    """Why the prompt changed the output of the pair with the same index."""

    index: int
    reason: str


class PseudoConversation(Record):
    """A self role-played conversation: user (environment) and assistant (agent) take turns.

    `messages` starts with a user turn, ends with an assistant turn and holds no prompt.
    `end` tells how it ended: "committed" (the agent gave its final action), "environment" (the
    environment's end token), "turn limit", or "faulty turn" (what followed was rejected).
    """

    index: int
    messages: Conversation
    end: str


class Action(Record):
    """What a reply asks the environment to do, e.g. kind "bash", content "ls /etc"."""

    kind: str
    content: str | None


class Turn(Record):
    """One reply of an agent and what came of it. Counts are tokens of the agent's model.

    `context_tokens` counts the conversation the agent read before this reply, with the header
    that opens the reply and without the agent's own prompt. `complete` is false where the reply
    was cut at its token limit. `continues` says that the conversation begins with the turn before
    and its reply, so that a session's cache holds them; the first turn and one after a reset do
    not. `action` is None where the reply held none. `observation` is None after the last turn.
    """

    reply: str
    context_tokens: int
    reply_tokens: int
    complete: bool
    continues: bool
    action: Action | None
    observation: str | None


class Episode(Record):
    """One sample of one task, played by one row of the results table.

    `status` is AgentBench's: "completed", "agent invalid action", "agent context limit",
    "task limit reached", "unknown" (the sample could not be started) or "task error". `score` is
    in [0, 1]; `measures` are the task's own parts of it, e.g. {"action_f1": 0.5}, the same names
    in every episode of a task. `groups` are the sample's labels that results are broken down by,
    e.g. {"tier": "easy", "family": "count_files"}. `details` tells how it was played and judged:
    {"backend": "embedded"}. `prompt_tokens` is what the agent carries in every call. `error`
    explains "unknown" and "task error"; such episodes count as 0.
    """

    task: str
    row: str
    index: str
    groups: dict[str, str]
    problem: str
    status: str
    score: float
    measures: dict[str, float]
    details: dict[str, str]
    prompt_tokens: int
    turns: list[Turn]
    error: str | None


class Played(Record):
    """An episode, and for each of its turns the conversation that the agent read before it."""

    episode: Episode
    read: list[Conversation]


class SkippedSample(Record):
    """A benchmark's sample that was left out, and why."""

    index: str
    reason: str


class TeacherState(Record):
    """A state that the prompted teacher visited in a held-out episode, and what it did there.

    `messages` is the conversation so far, without the prompt, ending in a user turn.
    """

    index: int
    messages: Conversation
    action: Action | None


class StateReply(Record):
    """A row's greedy reply in the teacher-visited state with the same index."""

    index: int
    reply: str
    action: Action | None
    teacher_action: Action | None


class AgentRecord(Record):
    """How a row's agent was run, for the cost accounts.

    `deployment` is what was evaluated: "base", "merged adapter", "unmerged adapter" or "trained
    prefix" (vectors in the place of a prompt, whose positions `prompt_tokens` counts).
    `adapter_parameters` counts trained weights (0 for the bounds). `bytes_to_ship` is what serving
    the row takes beside the base model: an adapter's file, a prefix, a prompt's text.
    """

    row: str
    deployment: str
    prompt_tokens: int
    adapter_parameters: int
    bytes_to_ship: int


class PromptRecall(Record):
    """What a row wrote when it was asked for the prompt as in PG training (`gcd.acting.recall`).

    `index` is that of the pair in the request. Both measures are in [0, 1].
    """

    index: int
    text: str
    edit_similarity: float
    rouge_l: float


class TrainingRecord(Record):
    """What training a row took. Tokens count all that the model read, and those with a label."""

    optimizer_steps: int
    read_tokens: int
    supervised_tokens: int
    trainable_parameters: int
    flops: int


class Failure(Record):
    """Why a row could not be trained or played."""

    reason: str


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all: temporary name, flush to disk, rename.

    Of several processes of a stage the first writes; on the others this does nothing.
    """
    if rank() > 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_records(path: Path, kind: type[RecordT]) -> list[RecordT]:
    """Read a file of `kind` records; raises UserError naming file and line of the first bad one."""
    try:
        # Not splitlines(): it also splits at U+2028 and others, which JSON leaves as they are.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    records = []
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise UserError(
                f"{path}, line {number}: expected one JSON object of a {kind.__name__}; "
                f"{where}: {first['msg']}. Delete the file and run `dvc repro`."
            ) from error
    return records


def read_json(path: Path) -> Any:
    """The JSON value in `path`; raises UserError if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: expected JSON, but {error}. Delete it and run `dvc repro`."
        ) from error
