"""Rows that fail by themselves: what counts as that, and how it is written down.

A row whose loss diverges or whose memory runs out is a result. `fit` and `run_episodes` write the
reason to `failed.json` and end well, so that DVC goes on with everything else. A method that trains
several rows writes it to the folder of the one that failed. Bad input and faults of the program are
no such thing: they stop their stage with a message.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from gcd.core.errors import RowFailure, UserError
from gcd.core.launch import rank
from gcd.core.records import Failure, write_records

# Of `RuntimeError`s: torch's on a GPU (also those of CUDA itself), and its allocator's on a CPU.
MEMORY_MESSAGES = ("out of memory", "DefaultCPUAllocator")
# Of a row that plays, behind the prompt, what was trained as the row without this ending.
WITH_PROMPT = "_with_prompt"


@contextmanager
def memory_is_the_row_s_own() -> Iterator[None]:
    """Within it, running out of memory is a RowFailure.

    Where the system kills the process instead, nothing can be caught: the stage then ends with
    DVC's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(text in message for text in MEMORY_MESSAGES):
            raise RowFailure(
                f"out of memory: {message[:200] or 'no room in main memory'}"
            ) from error
        raise


def write_failure(folder: Path, name: str, error: RowFailure) -> None:
    """Put the reason into the log, and into `folder`/failed.json in place of all that is there."""
    logging.error("%s fails: %s", name, error)
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    write_records(folder / "failed.json", [Failure(reason=str(error))])


@contextmanager
def by_itself(folder: Path) -> Iterator[None]:
    """Within it a row of several is trained into `folder`: if it fails, the others go on."""
    try:
        with memory_is_the_row_s_own():
            yield
    except RowFailure as error:
        write_failure(folder, folder.name, error)


def trained_row(row: str) -> str:
    """The row whose weights `row` plays: for `x_with_prompt` that is `x`, else `row` itself."""
    return row.removesuffix(WITH_PROMPT)


def read_row_failure(fitted: Path, row: str) -> str | None:
    """Why `row` could not be trained into `fitted`, the method's folder; None if it could.

    Raises UserError on a bad file.
    """
    return read_failure(fitted) or read_failure(fitted / trained_row(row))


def read_failure(folder: Path) -> str | None:
    """The reason in `folder`/failed.json, None if there is none; raises UserError on a bad file."""
    path = folder / "failed.json"
    if not path.exists():
        return None
    try:
        return Failure.model_validate_json(path.read_text(encoding="utf-8")).reason
    except ValidationError as error:
        raise UserError(
            f'{path}: expected {{"reason": text}}; {error.errors()[0]["msg"]}. '
            "Delete the file and run `dvc repro`."
        ) from error
