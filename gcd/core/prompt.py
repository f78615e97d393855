"""Prompt files: plain UTF-8 text is a system message; marked lines carry demonstration turns.

A line that is exactly `<!-- user -->` or `<!-- assistant -->` begins a turn of that role; the text
before the first one is the system message. (HTML comments: invisible where the file is rendered.)
White space around a message does not count; where it does, it is written as `&#10;`, its number.
"""

import re
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.records import Conversation, Message

_MARKER = re.compile(r"^<!-- (user|assistant) -->$", re.MULTILINE)
_EDGES = re.compile(r"\A[\t-\r ]+|[\t-\r ]+\Z")
_WRITTEN_EDGES = re.compile(r"\A(?:&#(?:9|1[0-3]|32);)+|(?:&#(?:9|1[0-3]|32);)+\Z")


def read_prompt_text(path: Path) -> str:
    """The file's text. Raises UserError if it is missing, empty, binary or not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); a prompt file is expected."
        ) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"{path}: a binary file; a prompt is plain text.")
    if not text.strip():
        raise UserError(f"{path}: empty; write the prompt to internalise into it.")
    return text.strip()


def parse_prompt(text: str, source: str) -> Conversation:
    """The messages of a prompt: a system message, then demonstration turns.

    Args:
        text: the file's text.
        source: its name, for errors.

    Raises:
        UserError: an empty turn, or turns that do not alternate user, assistant.
    """
    system, *parts = _MARKER.split(text)
    turns = list(zip(parts[::2], parts[1::2], strict=True))
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise UserError(
            f"{source}: demonstration turns must alternate `<!-- user -->`, `<!-- assistant -->` "
            "and end with an assistant's."
        )
    messages = [Message(role="system", content=_read(system))] if system.strip() else []
    for number, (role, content) in enumerate(turns, start=1):
        if not content.strip():
            raise UserError(f"{source}: turn {number} ({role}) is empty.")
        messages.append(Message.model_validate({"role": role, "content": _read(content)}))
    return messages


def format_prompt(messages: Conversation, source: str) -> str:
    """The text that `parse_prompt` reads as exactly these messages.

    Args:
        messages: turns that alternate user, assistant, perhaps after a system message.
        source: where they come from, for errors.

    Raises:
        UserError: no such text exists, e.g. because a message contains a marker line.
    """
    parts = []
    for message in messages:
        content = _EDGES.sub(
            lambda edge: "".join(f"&#{ord(character)};" for character in edge[0]), message.content
        )
        parts.append(content if message.role == "system" else f"<!-- {message.role} -->\n{content}")
    text = "\n".join(parts)
    if parse_prompt(text, source) != messages:
        raise UserError(
            f"{source}: these messages cannot be written as a prompt file: one contains a line "
            "that marks a turn, or begins or ends with a character's number."
        )
    return text


def _read(content: str) -> str:
    """A message as it stands in a file, with the white space that its numbers mean."""
    return _WRITTEN_EDGES.sub(
        lambda edge: "".join(chr(int(number)) for number in re.findall(r"\d+", edge[0])),
        content.strip(),
    )
