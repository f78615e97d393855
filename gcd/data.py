"""Where a task's prompt, samples and pseudo data lie, and how to read them."""

from dataclasses import dataclass
from pathlib import Path

from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import (
    Conversation,
    PairedOutput,
    PseudoConversation,
    Reason,
    read_records,
)


def task_folder(task: str) -> Path:
    """Out of `prepare`: the prompt, and demonstrations.jsonl, development.jsonl and test.jsonl."""
    return Path("data/tasks", task)


def prompt_file(task: str) -> Path:
    """The prompt to internalise: all that training sees of `task_folder`, but for the problems."""
    return task_folder(task) / "prompt.md"


def problems_file(task: str) -> Path:
    """The demonstrations' problems, which the model is shown when it invents new ones."""
    return task_folder(task) / "problems.jsonl"


def pseudo_folder(task: str) -> Path:
    """Out of the `make_…` stages, one file each, with its counts."""
    return Path("data/pseudo", task)


def pseudo_files(task: str) -> list[Path]:
    """What a method may read of `pseudo_folder`: pairs, reasons and conversations."""
    names = ["paired_outputs.jsonl", "reasons.jsonl", "conversations.jsonl"]
    return [pseudo_folder(task) / name for name in names]


def read_prompt(task: str) -> tuple[str, Conversation]:
    """The task's prompt: its text, and its messages. Raises UserError on a bad file."""
    path = prompt_file(task)
    text = read_prompt_text(path)
    return text, parse_prompt(text, str(path))


@dataclass(frozen=True)
class PseudoData:
    """Everything that synthesis made for a task; `reasons` by index of the pair."""

    prompt: str
    prompt_messages: Conversation
    pairs: list[PairedOutput]
    reasons: dict[int, str]
    conversations: list[PseudoConversation]


def read_pseudo_data(task: str) -> PseudoData:
    """Raises UserError naming file and line of the first bad record."""
    pairs, reasons, conversations = pseudo_files(task)
    prompt, messages = read_prompt(task)
    return PseudoData(
        prompt=prompt,
        prompt_messages=messages,
        pairs=read_records(pairs, PairedOutput),
        reasons={reason.index: reason.reason for reason in read_records(reasons, Reason)},
        conversations=read_records(conversations, PseudoConversation),
    )


def explained_pairs(task: str, count: int) -> list[PairedOutput]:
    """The first `count` of the pairs that have a reason: those that PG trains on."""
    pairs, reasons, _ = pseudo_files(task)
    explained = {reason.index for reason in read_records(reasons, Reason)}
    return [pair for pair in read_records(pairs, PairedOutput) if pair.index in explained][:count]
