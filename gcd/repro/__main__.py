"""Run what has changed of the pipeline, on all cores: what `make repro` does.

python -m gcd.repro
python -m gcd.repro --tasks os_interaction --jobs 1

Ends as `dvc repro` does, with the same files and the same dvc.lock. How: docs/running.md.
"""

import argparse
import fcntl
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from gcd.core.errors import UserError
from gcd.core.params import load_file
from gcd.repro.durations import expected_seconds, record
from gcd.repro.jobs import Run, default_jobs
from gcd.repro.lock import sort_lock
from gcd.repro.pipeline import cells_of, needed_by, read_pipeline
from gcd.repro.progress import Display
from gcd.repro.warm_python import warm_python

ONLY_ONE = Path(".work/repro.lock")


@contextmanager
def only_one() -> Iterator[None]:
    """Refuse to run twice at a time in one repository; a kill gives the lock back."""
    ONLY_ONE.parent.mkdir(exist_ok=True)
    with ONLY_ONE.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("Another `make repro` runs here; wait for it, or stop it.") from error
        yield


def reproduce(tasks: list[str], stages: list[str], jobs: int) -> None:
    """Run the changed stages: of all tasks, or those of `tasks` and of none.

    With `stages` only these and what they need.

    Raises:
        UserError: no jobs, an unknown task or stage, a stage that failed, or DVC cannot read the
            pipeline.
    """
    if jobs < 1:
        raise UserError(f"--jobs: expected 1 or more, got {jobs}.")
    known = list(load_file().get("tasks") or [])
    with only_one(), warm_python() as stage_python:
        whole = read_pipeline()
        chosen = cells_of(tasks or known, known, whole.upstream)
        if stages:
            chosen &= needed_by(stages, whole.upstream)
        pipeline = whole.only(chosen)
        changed = pipeline.only(pipeline.changed)
        if not changed.upstream:
            logging.info("%d stages are up to date.", len(pipeline.upstream))
            return
        with Display() as display:
            expected = expected_seconds(changed.upstream)
            try:
                Run(changed.upstream, expected, jobs, stage_python, display).run()
            finally:
                sort_lock(whole.upstream)
            display.say(f"{len(changed.upstream)} stages done.")


def interrupt(number: int, frame: object) -> NoReturn:
    """SIGTERM is Ctrl-C."""
    raise KeyboardInterrupt


def main() -> None:
    """The command line. Exit status 1 after an error, which is the last line; 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(
        prog="python -m gcd.repro", description=str(__doc__).split("\n", 1)[0]
    )
    parser.add_argument("--tasks", metavar="TASK,…", help="only these tasks; by default all")
    parser.add_argument(
        "--stages", metavar="STAGE,…", help="only these stages and what they need; by default all"
    )
    parser.add_argument("--jobs", type=int, help="stages at a time; by default one a core")
    parser.add_argument(
        "--record", action="store_true", help="write down how long the stages took here, and end"
    )
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        if options.record:
            record(read_pipeline().upstream)
        else:
            tasks = options.tasks.split(",") if options.tasks else []
            stages = options.stages.split(",") if options.stages else []
            reproduce(tasks, stages, default_jobs() if options.jobs is None else options.jobs)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        logging.info("Interrupted. Finished work is kept; the next run continues.")
        sys.exit(130)


if __name__ == "__main__":
    main()
