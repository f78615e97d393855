"""Scripts and answers of OS interaction, read and judged as AgentBench v0.2 does."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gcd.core.errors import UserError

# In AgentBench's order: "4KB" ends in "B", so it is read as "4K" bytes, which is no number.
_UNITS = (("B", 0), ("Byte", 0), ("K", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5))


class Script(BaseModel):
    """Code to run, or (`file`) the name of one of AgentBench's check scripts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    language: Literal["bash", "python"] = "bash"
    code: str | None = None
    file: str | None = None


def _size(text: str) -> int:
    """Bytes; raises ValueError as AgentBench's script does, e.g. on "4.0K"."""
    text = text.strip()
    for unit, power in _UNITS:
        if text.endswith(unit):
            return int(text.removesuffix(unit)) << 10 * power
    return int(text)


def native_check(name: str, answer: str, expected: str) -> bool:
    """AgentBench's own check scripts (scripts/*/check/*.py), without a Python in the sandbox."""
    plain = [text.replace("\r\n", "\n").strip() for text in (answer, expected)]
    try:
        if name == "integer-match":
            return int(answer) == int(expected)
        if name == "size-match":
            return _size(answer) == _size(expected)
    except ValueError:
        return False
    if name == "containing":
        return plain[1] in plain[0]
    if name == "in":
        return plain[0] in plain[1]
    return plain[0] == plain[1]


NATIVE_CHECKS = ("integer-match", "string-match", "size-match", "containing", "in")


def matches(answer: str | None, match: Any) -> bool:
    """The stripped answer equals `match`, or its regular expression is found in it."""
    if answer is None:
        return False
    rule = {"answer": match} if isinstance(match, str) else match
    if rule.get("strip", True):
        answer = answer.strip()
    if "regex" in rule:
        return re.search(rule["regex"], answer) is not None
    return bool(answer == rule["answer"])


def code_of(script: Script) -> str:
    """Raises UserError for a script that is a file: they are not part of the samples."""
    if script.code is None:
        raise UserError(f"expected the code of a script; got the file {script.file!r}: put it in")
    return script.code


def scripts(raw: Any) -> list[Script]:
    """AgentBench writes a script as text, as a mapping, or as a list of either."""
    if raw is None:
        return []
    if isinstance(raw, list):
        return [script for item in raw for script in scripts(item)]
    return [Script(code=raw) if isinstance(raw, str) else Script.model_validate(raw)]
