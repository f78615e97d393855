"""The format that replies should have, if the user gives one: a pattern or a JSON Schema.

A schema is checked by the `jsonschema` library: a part of the language written anew would call
replies valid that are not.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from gcd.core.errors import UserError

# A pattern that backtracks without end would stop the run; a reply has some hundred characters.
SECONDS = 1.0
# A reference to another document: it would have to be fetched.
_ELSEWHERE = re.compile(r'"\$(?:ref|dynamicRef)"\s*:\s*"([^"#][^"]*)"')


@dataclass(frozen=True)
class Format:
    """`kind` is "regular expression" or "JSON Schema"; `text` is the file's."""

    kind: str
    text: str

    def holds(self, reply: str) -> bool:
        """Whether a reply as a whole has the format; white space around it does not count."""
        if self.kind == "JSON Schema":
            try:
                value = json.loads(reply, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                return False
            return bool(Draft202012Validator(json.loads(self.text)).is_valid(value))
        try:
            return regex.fullmatch(self.text, reply.strip(), timeout=SECONDS) is not None
        except TimeoutError:
            return False


def _no_constant(name: str) -> Any:
    """Python's parser takes NaN and Infinity, which are no JSON."""
    raise ValueError(name)


def read_format(path: Path) -> Format:
    """A file that ends in .json is a JSON Schema (draft 2020-12), any other a regular expression.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or neither a schema nor an expression.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); FORMAT is a file with a JSON Schema "
            "(.json) or a regular expression."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    if not text:
        raise UserError(f"{path}: empty; expected a JSON Schema (.json) or a regular expression.")
    if path.suffix == ".json":
        try:
            Draft202012Validator.check_schema(json.loads(text))
        except ValueError as error:
            raise UserError(
                f"{path}: expected a JSON Schema, and it is no JSON: {error}."
            ) from error
        except SchemaError as error:
            raise UserError(f"{path}: expected a JSON Schema: {error.message}.") from error
        if found := _ELSEWHERE.search(text):
            raise UserError(
                f"{path}: refers to another document, {found[1]}; put it below `$defs` instead."
            )
        return Format("JSON Schema", text)
    try:
        regex.compile(text)
    except regex.error as error:
        raise UserError(f"{path}: expected a regular expression: {error}.") from error
    return Format("regular expression", text)
