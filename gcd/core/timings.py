"""Wall-clock figures and peak memory of stages: `logs/timings.jsonl`.

They differ from run to run, so they stay outside everything that DVC compares.
"""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

TIMINGS = Path("logs/timings.jsonl")
_loading_started: list[float] = []
_loading_seconds: list[float] = []


@contextmanager
def loading() -> Iterator[None]:
    """Count the enclosed seconds as imports and model loads.

    Blocks may be nested: the outermost counts.
    """
    _loading_started.append(time.perf_counter())
    try:
        yield
    finally:
        start = _loading_started.pop()
        if not _loading_started:
            _loading_seconds.append(time.perf_counter() - start)


def seconds_since_start() -> float:
    """Seconds since this process began: called after its imports, the time they took."""
    return time.time() - psutil.Process().create_time()


def write_timing(name: str, arguments: list[str], start_up: float) -> None:
    """Append one line about a finished stage: all times in seconds, peak memory in bytes.

    Args:
        name, arguments: of the stage.
        start_up: `seconds_since_start()` at its beginning. What was imported or loaded later is
            added up by `loading`.
    """
    TIMINGS.parent.mkdir(exist_ok=True)
    line = {
        "stage": name,
        "arguments": arguments,
        "seconds": round(seconds_since_start(), 2),
        "start_up_seconds": round(start_up, 2),
        "loading_seconds": round(sum(_loading_seconds), 2),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    with TIMINGS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
