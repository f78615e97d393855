"""Run ablations, or repeat the trained rows with other seeds, and record what comes out.

python -m gcd.experiments ablations
python -m gcd.experiments ablations --name prompt_weight --grid large
python -m gcd.experiments seeds

Points that are saved already, here or fetched from another machine, are not run again.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from gcd.core.errors import UserError
from gcd.experiments.collecting import Saved, ablation_frame, seeds_frame
from gcd.experiments.definitions import FOLDER, Ablations, Seeds, read_definition
from gcd.experiments.points import Point, all_ablations, rows_of, seed_points
from gcd.experiments.queue import run_points, share
from gcd.experiments.records import ablation_file, seeds_file, write_record
from gcd.experiments.worktrees import clean_commit, read_saved
from gcd.profiles import committed_params
from gcd.repro.__main__ import interrupt, only_one
from gcd.repro.jobs import default_jobs


def complete(points: list[Point], commit: str, written: Callable[[dict[str, Saved]], None]) -> None:
    """Run what is missing of `points`.

    Args:
        points: some may have the same name, and are then the same.
        commit: what they change.
        written: gets all that is saved, by name, at the beginning and after each point.
    """
    named = {point.name: point for point in points}
    saved = {name: one for name in named if (one := read_saved(named[name], commit)) is not None}

    def update() -> None:
        for name in named.keys() - saved.keys():
            one = read_saved(named[name], commit)
            if one is not None:
                saved[name] = one
        written(saved)

    update()
    missing = [point for name, point in named.items() if name not in saved]
    logging.info("%d of %d points are saved, %d to run.", len(saved), len(named), len(missing))
    run_points(missing, commit, share(os.sched_getaffinity(0), default_jobs()), update)


def run_ablations(source: Path, only: str | None) -> None:
    """Run the ablations of the file `source`, or one, and write each record once it is whole.

    Raises:
        UserError: a definition, a param or the workspace is not as it should be, or a point fails.
    """
    definition = read_definition(source, Ablations)
    commit, text = clean_commit(), committed_params()
    ablations = all_ablations(definition, only, text, source)
    [first, *_] = ablations.values()
    rows = rows_of([definition.method], first[0].params)
    if len(rows) != 1:
        raise UserError(
            f"{source}: key `method`: expected a method that fills one row, and "
            f"{definition.method} fills {', '.join(rows)}."
        )
    written: set[str] = set()

    def write(saved: dict[str, Saved]) -> None:
        for name, points in ablations.items():
            if name not in written and all(point.name in saved for point in points):
                path = ablation_file(name)
                frame = ablation_frame(points, saved, definition.task, rows[0])
                write_record(frame, path)
                written.add(name)
                logging.info("%s is written.", path)

    complete([point for points in ablations.values() for point in points], commit, write)


def run_seeds(source: Path) -> None:
    """Run the seeds of the file `source` and write the record once it is whole.

    Raises:
        UserError: see `run_ablations`.
    """
    definition = read_definition(source, Seeds)
    commit, text = clean_commit(), committed_params()
    points = seed_points(definition, text, source)
    rows = rows_of(definition.methods, points[0].params)

    def write(saved: dict[str, Saved]) -> None:
        if len(saved) == len(points):
            path = seeds_file(definition.task)
            write_record(seeds_frame(points, saved, definition.task, rows), path)
            logging.info("%s is written.", path)

    complete(points, commit, write)


def main() -> None:
    """The command line. Exit status 1 after an error, which is the last line; 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(
        prog="python -m gcd.experiments", description=str(__doc__).split("\n", 1)[0]
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    ablations = kinds.add_parser("ablations", help=f"{FOLDER}/ablations.yaml")
    ablations.add_argument("--name", help="only this one; by default all")
    ablations.add_argument("--grid", help=f"{FOLDER}/ablations_<grid>.yaml in its place")
    kinds.add_parser("seeds", help=f"{FOLDER}/seeds.yaml")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with only_one():
            if options.kind == "seeds":
                run_seeds(FOLDER / "seeds.yaml")
            else:
                grid = f"_{options.grid}" if options.grid else ""
                run_ablations(FOLDER / f"ablations{grid}.yaml", options.name)
        logging.info("The report shows them after `make repro`.")
    except UserError as error:
        sys.exit(f"experiments: {error}")
    except KeyboardInterrupt:
        logging.info("Interrupted. Finished work is kept; the next run continues.")
        sys.exit(130)


if __name__ == "__main__":
    main()
