"""What a run shows: a line for each running stage and one for the whole DAG, with the time left.

On a terminal these lines stay below and are drawn anew; elsewhere (the log of a CI job) they are
printed every half minute. When a stage starts or ends there is a line in both.
"""

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 30.0
LIVE_SECONDS = 0.5

_BAR = re.compile(r"\d+%\|")
_TIME_LEFT = re.compile(r"<(?:(\d+):)?(\d+):(\d+)[,\]]")


def clock(seconds: float) -> str:
    """75.4 as 0:01:15."""
    return str(timedelta(seconds=round(seconds)))


def is_bar(line: str) -> bool:
    """Whether tqdm drew it."""
    return bool(_BAR.search(line))


def bar_text(line: str) -> str:
    """A line of tqdm without the drawing: its name, done/total, times and rate."""
    return " ".join(re.sub(r"\d+%\|[^|]*\|", "", line).split())


def bar_seconds_left(line: str) -> float:
    """What a line of tqdm says is left; 0 where it does not know."""
    found = _TIME_LEFT.search(line)
    if not found:
        return 0.0
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600.0 + minutes * 60 + seconds


@dataclass(frozen=True)
class StageProgress:
    """A running stage: seconds since its start and (expected) to its end, its last bar's text."""

    stage: str
    elapsed: float
    left: float
    bar: str

    def __str__(self) -> str:
        return f"{self.stage}  {clock(self.elapsed)}, {clock(self.left)} left  {self.bar}".rstrip()


class Display:
    """Writes to standard output. A context manager: leaving it takes the live lines away."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._shown = self._started
        console = Console(highlight=False, soft_wrap=True)
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(f"{self.clock()}  {text}"))

    def clock(self) -> str:
        """Time since the run began."""
        return clock(time.monotonic() - self._started)

    def show(self, running: list[StageProgress], done: int, total: int, left: float) -> None:
        """Draw where the run stands, if it is time to.

        Args:
            done, total: numbers of stages.
            left: seconds to the end of the DAG.
        """
        terminal = self._console.is_terminal
        now = time.monotonic()
        if now - self._shown < (LIVE_SECONDS if terminal else PLAIN_SECONDS):
            return
        self._shown = now
        whole = f"{done}/{total} stages done, {clock(left)} left"
        if terminal:
            lines = [Text(f"  {stage}", no_wrap=True, overflow="ellipsis") for stage in running]
            self._live.update(Group(*lines, Text(f"{self.clock()}  {whole}")), refresh=True)
        else:
            self.say("; ".join([whole, *map(str, running)]))
