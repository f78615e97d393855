"""Points, several at a time, each on cores of its own."""

import logging
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gcd.core.errors import UserError
from gcd.experiments import worktrees
from gcd.experiments.points import Point
from gcd.repro.progress import clock

SECONDS = 0.5  # between two looks at what runs


@dataclass(frozen=True)
class Running:
    """A point that runs."""

    point: Point
    folder: Path
    cores: set[int]
    process: subprocess.Popen[bytes]
    started: float


def share(cores: set[int], jobs: int) -> list[set[int]]:
    """`cores` in `jobs` groups of about equal size, at most one for each core."""
    ordered = sorted(cores)
    count = min(jobs, len(ordered))
    return [set(ordered[place::count]) for place in range(count)]


def run_points(
    points: list[Point], commit: str, slots: list[set[int]], saved: Callable[[], None]
) -> None:
    """Run and save all `points`, one in each of `slots` at a time.

    Args:
        points: in the order in which they begin; none has been saved.
        commit: what they change.
        slots: the cores of each that runs.
        saved: called whenever another one has been saved.

    Raises:
        UserError: stages of some points failed; the others are saved.
        KeyboardInterrupt: Ctrl-C; nothing runs any more.
    """
    begun = time.monotonic()
    waiting, free = list(points), list(slots)
    running: list[Running] = []
    failed: list[str] = []

    def say(text: str) -> None:
        logging.info("%s  %s", clock(time.monotonic() - begun), text)

    try:
        while waiting or running:
            while waiting and free:
                point, cores = waiting.pop(0), free.pop(0)
                folder = worktrees.prepare(point, commit)
                process = worktrees.start(point, folder, cores)
                running.append(Running(point, folder, cores, process, time.monotonic()))
                say(f"{point.name} begins")
            time.sleep(SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.cores)
                took = clock(time.monotonic() - one.started)
                if one.process.returncode:
                    error = worktrees.last_line(one.point)
                    failed.append(f"{one.point.name}: {error}")
                    say(f"{one.point.name} fails after {took}: {error}")
                    continue
                try:
                    worktrees.save(one.point, one.folder)
                except UserError as error:
                    failed.append(f"{one.point.name}: {error}")
                    say(f"{one.point.name} cannot be saved: {error}")
                    continue
                done = len(points) - len(waiting) - len(running) - len(failed)
                say(f"{one.point.name} ends after {took}; {done} of {len(points)} points done")
                saved()
    finally:
        for one in running:
            one.process.send_signal(signal.SIGINT)
        for one in running:
            one.process.wait()
    if failed:
        raise UserError(
            f"{len(failed)} of {len(points)} points failed, the first of them {failed[0]} "
            f"(whole output: {worktrees.LOGS}/). The others are saved; the next run goes on."
        )
