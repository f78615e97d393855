"""Runs stages, several at a time: each is a `dvc repro --single-item` of its own."""

import errno
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path
from typing import BinaryIO

import psutil

from gcd.core.errors import UserError
from gcd.repro.durations import slowness
from gcd.repro.progress import (
    LIVE_SECONDS,
    Display,
    StageProgress,
    bar_seconds_left,
    bar_text,
    is_bar,
)
from gcd.repro.schedule import Upstream, longest_paths, ready_stages, seconds_left
from gcd.repro.warm_python import gpu_is_there

LOGS = Path("logs")
# A stage of the default run needs up to 6.6 GiB.
JOB_BYTES = 8 * 2**30
# After Ctrl-C: time to write a checkpoint down, then everything is killed.
GRACE_SECONDS = 10.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def default_jobs() -> int:
    """One for each core, as far as memory goes; one where stages would share a GPU."""
    if gpu_is_there():
        return 1
    return max(1, min(cores(), psutil.virtual_memory().available // JOB_BYTES))


def own_error(text: str) -> str:
    """The last line of a stage's output; DVC's own, if the stage did not come to say anything.

    Args:
        text: what `dvc repro` wrote: its own lines, `> command`, the stage's lines, its own again.
    """
    lines = [line.strip() for line in re.split("[\r\n]", text) if line.strip()]
    command = max((n for n, line in enumerate(lines) if line.startswith("> ")), default=len(lines))
    dvc = ("ERROR: failed to repro", "!")  # its bars begin with an exclamation mark
    own = [line for line in lines[command + 1 :] if not line.startswith(dvc)]
    return [*lines, *own][-1] if lines else ""


class Job:
    """One running stage. Its output goes to `logs/<stage>.log`, the last lines are kept.

    It runs in a pseudo-terminal, so that tqdm draws every second.
    """

    def __init__(self, stage: str, stage_python: str, threads: int) -> None:
        self.stage = stage
        self.bar = ""  # tqdm's last line
        self.seconds = 0.0  # once it has ended
        self._started = time.monotonic()
        self._log: BinaryIO = (LOGS / f"{stage}.log").open("wb")
        self._text = ""  # the end of its output
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {
            **os.environ,
            "PATH": path,  # `python` is this one
            "SHELL": "/bin/sh",  # zsh would not split STAGE_PYTHON at spaces
            "STAGE_PYTHON": stage_python,
            "OMP_NUM_THREADS": str(threads),
        }
        self.terminal, end = pty.openpty()
        tty.setraw(end)  # line ends are left as they are
        termios.tcsetwinsize(end, (24, 100))  # tqdm draws nothing where there is no width
        self._process = subprocess.Popen(
            [*stage_python.split(), "-m", "gcd.repro.run_stage", stage],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=end,
            stderr=end,
            start_new_session=True,  # Ctrl-C is for the driver, which tells the stages
        )
        os.close(end)

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def ended(self) -> bool:
        return self._process.poll() is not None

    def read(self) -> bool:
        """Take in what it has written since; False if nothing can come any more."""
        try:
            chunk = os.read(self.terminal, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that the other side is closed
                raise
            chunk = b""
        self._log.write(chunk)
        self._log.flush()
        self._text = (self._text + _COLOUR.sub("", chunk.decode(errors="replace")))[-20_000:]
        bars = [line for line in re.split("[\r\n]", self._text[-1000:])[:-1] if is_bar(line)]
        self.bar = bars[-1] if bars else self.bar
        return bool(chunk)

    def close(self) -> int:
        """Take in the rest, once it has ended; returns its exit status."""
        while select.select([self.terminal], [], [], 0)[0] and self.read():
            pass
        status = self._process.wait()
        self.seconds = self.elapsed()
        os.close(self.terminal)
        self._log.close()
        return status

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def error(self) -> str:
        """What its log says about its failure, in one line."""
        return own_error(self._text) or f"{self.stage}: no output"


class Run:
    """Stages that run in the order of `schedule`, `jobs` at a time."""

    def __init__(
        self,
        upstream: Upstream,
        expected: dict[str, float],
        jobs: int,
        stage_python: str,
        display: Display,
    ) -> None:
        """`expected`: seconds of each stage."""
        self._upstream = upstream
        self._expected = expected
        self._paths = longest_paths(upstream, expected)
        self._jobs = jobs
        self._stage_python = stage_python
        self._display = display
        self._running: list[Job] = []
        self._done: dict[str, float] = {}  # the seconds they took

    def run(self) -> None:
        """Run them all.

        Raises:
            UserError: a stage failed; those that ran beside it have ended.
            KeyboardInterrupt: Ctrl-C; nothing runs any more, or is killed with the warm Python.
        """
        failed: list[Job] = []
        try:
            while self._running or (len(self._done) < len(self._upstream) and not failed):
                if not failed:
                    self._start()
                failed += self._take_in()
                if self._display.due():
                    self._show()
        except KeyboardInterrupt:
            self._interrupt()
            raise
        if failed:
            raise UserError(failed[0].error())

    def _start(self) -> None:
        names = {job.stage for job in self._running}
        ready = ready_stages(self._upstream, self._done.keys(), self._paths)
        ready = [stage for stage in ready if stage not in names]
        # A stage that has the machine to itself has all cores: nothing can start before it ends.
        threads = max(1, cores() // min(self._jobs, len(names) + len(ready) or 1))
        for stage in ready[: self._jobs - len(names)]:
            self._running.append(Job(stage, self._stage_python, threads))
            self._display.say(f"{stage} begins")

    def _take_in(self) -> list[Job]:
        """Wait for output; returns the jobs that failed."""
        failed = []
        waiting = {job.terminal: job for job in self._running}
        for terminal in select.select(list(waiting), [], [], LIVE_SECONDS)[0]:
            if not waiting[terminal].read():
                time.sleep(0.01)  # its process ends next
        for job in [job for job in self._running if job.ended()]:
            status = job.close()
            self._running.remove(job)
            how = "ends" if status == 0 else f"fails, its output is in {LOGS / job.stage}.log"
            self._display.say(f"{job.stage} {how}, {job.seconds:.1f} s")
            if status:
                failed.append(job)
            else:
                self._done[job.stage] = job.seconds
        return failed

    def _show(self) -> None:
        done = self._done
        factor = slowness([self._expected[stage] for stage in done], done.values())
        seconds = {stage: factor * value for stage, value in self._expected.items()}
        running = [
            StageProgress(
                job.stage,
                job.elapsed(),
                max(seconds[job.stage] - job.elapsed(), bar_seconds_left(job.bar)),
                bar_text(job.bar),
            )
            for job in self._running
        ]
        left = {stage.stage: stage.left for stage in running}
        self._display.show(
            running,
            len(done),
            len(self._upstream),
            seconds_left(self._upstream, done.keys(), left, seconds, self._jobs),
        )

    def _interrupt(self) -> None:
        """Let the stages end as after Ctrl-C. What is left is killed with the warm Python."""
        end = time.monotonic() + GRACE_SECONDS
        for job in self._running:
            job.interrupt()
        while self._running and time.monotonic() < end:
            self._take_in()
