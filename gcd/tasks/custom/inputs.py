"""Files of inputs: what people bring to a prompt, one JSON object a line, {"input": "…"}.

The folder of the task `custom` holds two: the user's own (perhaps none), and synthesised ones that
are held out from training. Reading checks every line.
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from gcd.core.errors import UserError
from gcd.core.records import Record

OWN, SYNTHESISED = "inputs.jsonl", "held_out.jsonl"
Source = Literal["user", "synthesised", "prompt"]
SOURCES: dict[str, Source] = {OWN: "user", SYNTHESISED: "synthesised"}


class Line(Record):
    """One line of such a file."""

    input: str


class Input(Record):
    """A sample of the task: a text, and who wrote it."""

    index: str
    source: Source
    text: str

    @property
    def problem(self) -> str:
        """The text on one line."""
        return " ".join(self.text.split())

    @property
    def groups(self) -> dict[str, str]:
        return {"source": self.source}


def read_lines(path: Path) -> list[str]:
    """The inputs of a file, in their order.

    Raises:
        UserError: the file is missing or not UTF-8, or a line is no {"input": "…"} with a text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f'{path}: cannot be read ({error.strerror}); expected a file of lines {{"input": "…"}}.'
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        where = f'{path}, line {number}: expected one JSON object {{"input": "…"}}'
        try:
            one = Line.model_validate_json(line).input
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"{where}; {f'{key}: ' if key else ''}{first['msg']}.") from error
        if not one.strip() or "\0" in one:
            raise UserError(f"{where} with a text; got {one!r}.")
        found.append(one.strip())
    return found


def read_inputs(path: Path) -> list[Input]:
    """The same as samples of the task; `path` is one of the two files."""
    source = SOURCES[path.name]
    return [
        Input(index=f"{source}-{number:03d}", source=source, text=text)
        for number, text in enumerate(read_lines(path))
    ]


def inputs_text(texts: list[str]) -> str:
    """The text of a file with these inputs."""
    return "".join(Line(input=text).model_dump_json() + "\n" for text in texts)
