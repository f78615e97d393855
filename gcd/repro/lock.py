"""dvc.lock by its lines: a stage's are replaced, or moved, and the others stay as they are.

DVC itself reads the file into objects that keep comments, and writes all of it again, in Python:
that takes 3 s after each of the default run's 47 stages (5,000 lines), and the more rows the
longer. What is written is the same, byte for byte.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml

from gcd.core.errors import UserError
from gcd.core.records import write_text

LOCK = Path("dvc.lock")
_HEAD = "schema: '2.0'\nstages:\n"
# A parameter that is a text may have empty lines.
_BLOCK = re.compile(r"^  (\S+):\n(?:(?:   .*)?\n)*", re.MULTILINE)


def _read() -> dict[str, str]:
    """The lines of each stage, its name's among them; none if there is no file.

    Raises:
        UserError: the file holds something else, or is not written as DVC writes it.
    """
    if not LOCK.exists():
        return {}
    text = LOCK.read_text(encoding="utf-8")
    blocks = {match[1]: match[0] for match in _BLOCK.finditer(text)}
    if text != _HEAD + "".join(blocks.values()):
        raise UserError(
            f"{LOCK}: expected `schema` and `stages` as DVC writes them, found something else. "
            f"Restore it: git checkout {LOCK}"
        )
    return blocks


def _write(blocks: dict[str, str]) -> None:
    write_text(LOCK, _HEAD + "".join(blocks.values()))


def update_lock(stages: dict[str, Any]) -> None:
    """Write down `stages` by name, each where it stands, new ones at the end.

    Args:
        stages: what DVC's `to_lockfile` makes of each stage.

    Raises:
        UserError: as `_read`.
    """
    blocks = _read()
    for name, content in stages.items():
        blocks[name] = dumps_yaml({"stages": {name: content}}).removeprefix("stages:\n")
    _write(blocks)


def sort_lock(order: Iterable[str]) -> None:
    """Bring dvc.lock into `order`: stages are appended when they end, and parallel runs mix them.

    Raises:
        UserError: as `_read`.
    """
    blocks = _read()
    ordered = {stage: blocks[stage] for stage in order if stage in blocks}
    if list(ordered) != list(blocks):
        _write({**ordered, **blocks})
