"""What every stage shares: one-line errors, a log, and a folder in which killed work continues."""

import errno
import hashlib
import inspect
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.launch import rank
from gcd.core.params import Params
from gcd.core.timings import seconds_since_start, write_timing

WORK = Path(".work")


def hash_files(paths: list[Path]) -> str:
    """SHA-256 over names and contents of files, and of all files below folders, sorted."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
        for file in files:
            digest.update(f"{file}\0".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def work_folder(name: str, params: Params, inputs: list[Path]) -> Iterator[Path]:
    """A folder for unfinished work of the stage cell `name`; removed when the block succeeds.

    Its path contains a hash of the parameters, the inputs and all code, so that a stage that was
    killed continues only what the very same run had begun. DVC knows nothing of it. Of several
    processes the first makes and removes it.

    Raises:
        UserError: an input does not exist.
    """
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file. Run `dvc repro` to make it.")
    code = sorted(Path(__file__).parents[2].glob("gcd/**/*.py"))
    key = hashlib.sha256(f"{params.fingerprint()}{hash_files(inputs)}{hash_files(code)}".encode())
    cell = WORK / name
    folder = cell / key.hexdigest()[:16]
    if folder.exists():
        logging.info("%s: continuing what an interrupted run left in %s", name, folder)
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if rank() == 0:
        shutil.rmtree(cell)


def run(main: Callable[..., None]) -> None:
    """Call `main` with the command line's arguments; end in one line on a user's mistake.

    Exit status 1 after a UserError or a full disk, 2 after wrong arguments, 130 after Ctrl-C. Of
    several processes the first tells how it goes; the others only what went wrong, with their rank.
    """
    start_up = seconds_since_start()
    level, source = (logging.INFO, "") if rank() == 0 else (logging.ERROR, f"process {rank()}: ")
    logging.basicConfig(level=level, format=f"{source}%(message)s", stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # they log every request
        logging.getLogger(client).setLevel(logging.WARNING)
    name = Path(sys.argv[0]).stem
    arguments = sys.argv[1:]
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError:
        expected = " ".join(f"<{part}>" for part in inspect.signature(main).parameters)
        logging.error("usage: python -m stages.%s %s", name, expected)
        sys.exit(2)
    try:
        main(*arguments)
    except UserError as error:
        logging.error("%s: %s", name, error)
        sys.exit(1)
    except KeyboardInterrupt:
        logging.error("%s: interrupted. Finished work is kept; `dvc repro` continues.", name)
        sys.exit(130)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            logging.error("%s: the disk is full. Free space, then `dvc repro` continues.", name)
            sys.exit(1)
        raise
    if rank() == 0:
        write_timing(name, arguments, start_up)
