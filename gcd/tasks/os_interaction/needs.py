"""What AgentBench's samples need and the sandbox, or this machine, has not got."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

# Where a command can stand in a script.
_COMMAND = r"(?:^|[;&|(`\n]|\b(?:then|do|else|sudo)\s)\s*"
_MISSING = {
    "a network": r"(?:apt(?:-get)?|yum|dnf|npm|pip3?)\s+(?:-\S+\s+)*(?:install|update|remove)\b"
    r"|(?:curl|wget|git\s+clone)\s[^\n]*https?://",
    "several users": r"(?:su|runuser)\s|chown\s+(?:-\S+\s+)*(?!root\b)[a-z]",
}
# What AgentBench's image has and a host may lack. (npm is not in it: samples ask whether it is.)
_PROGRAMS = [
    "curl",
    "git",
    "groupadd",
    "ps",
    "python3",
    "tree",
    "unzip",
    "useradd",
    "usermod",
    "vim",
    "wget",
    "zip",
]
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def unmet_need(source: dict[str, Any]) -> str | None:
    """Why the sample cannot be played, by the commands in its scripts; None if it can.

    Args:
        source: a sample in AgentBench's schema, with the code of all scripts in it.
    """
    create, evaluation = source.get("create"), source["evaluation"]
    raw = [create.get("init") if isinstance(create, dict) else None, source.get("start")]
    if "match" not in evaluation:
        raw += [evaluation["check"], evaluation.get("example")]
    text = "\n".join(code for item in raw for code in _code(item))
    for need, pattern in _MISSING.items():
        command = re.search(f"{_COMMAND}({pattern})", text)
        if command is not None:
            return f"needs {need}, which the sandbox has not got: `{command[1].strip()}`"
    for program in _PROGRAMS:
        used = re.search(rf"{_COMMAND}{program}\b", text)
        if used is not None and shutil.which(program, path=_PATH) is None:
            return f"needs the program `{program}`, which this machine has not got"
    return None


def _code(raw: Any) -> Iterator[str]:
    """The text of a script, or of every script in a list."""
    for item in raw if isinstance(raw, list) else [raw]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and "code" in item:
            yield item["code"]
