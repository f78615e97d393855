"""How Mind2Web's candidate ranking model ranked every element of every step.

Three forms of one mapping, {"<annotation_id>_<action_uid>": {backend_node_id: rank}}, rank 0 best:
`.json` (the mapping, or an object that holds it under "ranks", beside "scores"), `.npz` (three
arrays of one length: `steps`, `elements`, `ranks`), and the original's pickle,
scores_all_data.pkl, read without running anything that is in it.
"""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import TypeAdapter, ValidationError

from gcd.core.errors import UserError

Ranks = dict[str, dict[str, int]]
_RANKS = TypeAdapter(Ranks)


def read_ranks(path: Path) -> Ranks:
    """Read by the file's ending; raises UserError naming file and place."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": _read_json,
        ".npz": _read_npz,
        ".pkl": _read_pickle,
    }
    if path.suffix not in readers:
        raise UserError(f"{path}: expected ranks as {', '.join(readers)}; got {path.suffix!r}.")
    try:
        content = readers[path.suffix](path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; it is named by `ranks_path`.") from error
    if isinstance(content, dict) and isinstance(content.get("ranks"), dict):
        content = content["ranks"]
    try:
        return _RANKS.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(
            f"{path}, {where}: expected {{step: {{element: rank}}}}; {first['msg']}."
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: expected JSON; {error}.") from error


def _read_npz(path: Path) -> Ranks:
    names = ("steps", "elements", "ranks")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            columns = [arrays[name].tolist() for name in names]
    except (ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: expected the arrays {', '.join(names)}; {error}.") from error
    if len({len(column) for column in columns}) > 1:
        raise UserError(f"{path}: expected arrays of one length; got {list(map(len, columns))}.")
    ranks: Ranks = {}
    for step, element, rank in zip(*columns, strict=True):
        ranks.setdefault(str(step), {})[str(element)] = rank
    return ranks


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except _RefusedError as error:
            raise UserError(
                f"{path}: expected numbers, text, lists, tuples and dictionaries; got {error}, "
                "which is not loaded, as it could run code. Get the file from its source again."
            ) from error
        # A damaged pickle can end in nearly any error of its virtual machine.
        except Exception as error:
            raise UserError(f"{path}: not a readable pickle; {error!r}.") from error


class _RefusedError(Exception):
    """The pickle names a class that plain data does not need."""


class _NumberType:
    """Stands for `numpy.dtype` of one plain number: "f4", "i8", ... ."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumberType, content: bytes) -> int | float:
    """Stands for `numpy.core.multiarray.scalar`."""
    codes = {"f4": "f", "f8": "d", "i4": "i", "i8": "q", "u4": "I", "u8": "Q"}
    value: int | float = struct.unpack(kind.order + codes[kind.code], content)[0]
    return value


def _bytes(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, which makes bytes in pickles of protocol 2 and before."""
    if encoding != "latin1":
        raise _RefusedError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _number,  # numpy 1
    ("numpy._core.multiarray", "scalar"): _number,  # numpy 2
}


class _Unpickler(pickle.Unpickler):
    """Knows `_KNOWN`, stand-ins of this file; every other name is refused.

    Dictionaries, lists, tuples, text and numbers need no name in a pickle.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"a reference to {pid!r}")
