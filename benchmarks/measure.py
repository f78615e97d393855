"""Time and memory of two sides in one process, in turns, and what is written down about them.

Memory is the kernel's own high-water mark of the process (`VmHWM`), set back before every run by
writing to /proc/self/clear_refs: exact, where a sampling thread can miss a peak, and per run,
where `ru_maxrss` only ever grows. What the allocator holds back from the run before is returned to
the kernel first (`malloc_trim`). Counted is what lies above the process after warming up, with
the models and optimizer states of both sides.
"""

import ctypes
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tqdm import tqdm

from benchmarks.results import Bar, BenchmarkRecord, Comparison, Spread, table
from gcd.core.errors import UserError


@dataclass(frozen=True)
class Run:
    """One run of one side. `peak_bytes` count from the process after warming up."""

    seconds: float
    peak_bytes: int
    result: Any


def pin_threads() -> None:
    """As many threads as there are physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0))
    torch.set_num_threads(min(psutil.cpu_count(logical=False) or usable, usable))


def _memory(field: str) -> int:
    """Bytes of `field` in /proc/self/status: VmRSS is now, VmHWM the most since the last reset."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def tidy_memory() -> None:
    """Give back to the kernel what neither Python nor the allocator uses."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def run_once(side: Callable[[], Any], baseline: int) -> Run:
    """Time and peak memory of one call, the latter above `baseline` bytes."""
    tidy_memory()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: set back VmHWM
    start = time.perf_counter()
    result = side()
    seconds = time.perf_counter() - start
    return Run(seconds, _memory("VmHWM") - baseline, result)


def alternate(
    sides: dict[str, Callable[[int], Any]],
    repeats: int,
    warm_up: Sequence[Callable[[], object]],
) -> dict[str, list[Run]]:
    """Run every side once a repeat, in the order given: ours, reference, ours, reference, …

    Args:
        sides: by name; a side is called with the number of the repeat.
        repeats: how often.
        warm_up: called before, uncounted: a process' first training step takes two to four times
            as long as the others, and weights are read from the disk when they are first used.

    Returns:
        For each side its runs, one a repeat.
    """
    for call in warm_up:
        call()
    tidy_memory()
    baseline = _memory("VmRSS")
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    with tqdm(total=repeats * len(sides), unit="run") as bar:
        for repeat in range(repeats):
            for name, side in sides.items():
                bar.set_description(name)
                runs[name].append(run_once(partial(side, repeat), baseline))
                bar.update(1)
    return runs


def spread(values: Sequence[float], unit: str) -> Spread:
    """Median and range; `values` has at least one."""
    return Spread(
        median=float(statistics.median(values)),
        low=float(min(values)),
        high=float(max(values)),
        unit=unit,
    )


def compare(
    figure: str,
    ours: Sequence[float],
    reference: Sequence[float],
    unit: str,
    *,
    bar: Bar | None,
    inverse: bool = False,
) -> Comparison:
    """A comparison pair by pair: reference / ours, or with `inverse` ours / reference."""
    pairs = list(zip(ours, reference, strict=True))
    ratios = [one / other if inverse else other / one for one, other in pairs]
    return Comparison(
        figure=figure,
        ours=spread(ours, unit),
        reference=spread(reference, unit),
        ratio_of="ours / reference" if inverse else "reference / ours",
        ratio=spread(ratios, ""),
        exponent=None,
        bar=bar,
    )


def compare_sides(
    runs: dict[str, list[Run]],
    work: str,
    at_least: float,
    *,
    memory_at_most: float | None = None,
    reference_share: int = 1,
) -> list[Comparison]:
    """Time and peak memory of the sides "ours" and "reference".

    Args:
        runs: from `alternate`.
        work: what a run is, e.g. "a step".
        at_least: the bar for the ratio of times.
        memory_at_most: the bar for our share of the reference's memory, if there is one.
        reference_share: a run of the reference is one in so many parts of a run of ours.
    """
    ours, reference = runs["ours"], runs["reference"]
    bar = Bar(kind="at most", value=memory_at_most) if memory_at_most is not None else None
    return [
        compare(
            f"time of {work}",
            seconds(ours),
            [reference_share * one for one in seconds(reference)],
            "s",
            bar=Bar(kind="at least", value=at_least),
        ),
        compare(
            f"peak memory of {work}",
            mebibytes(ours),
            mebibytes(reference),
            "MiB",
            bar=bar,
            inverse=True,
        ),
    ]


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """b of value = a size^b, by least squares of the logarithms.

    Args:
        sizes: at least two different ones, all positive.
        values: one a size, all positive.
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def grow(
    figure: str, sizes: Sequence[int], values: Sequence[Sequence[float]], unit: str, bar: Bar
) -> Comparison:
    """How a figure grows: at the largest size, against linear growth from the smallest one.

    Args:
        sizes: in ascending order.
        values: for each size, one value a repeat.
    """
    step = sizes[-1] / sizes[0]
    compared = compare(
        figure, values[-1], [value * step for value in values[0]], unit, bar=bar, inverse=True
    )
    exponents = [growth_exponent(sizes, repeat) for repeat in zip(*values, strict=True)]
    return compared.model_copy(update={"exponent": spread(exponents, "")})


def seconds(runs: list[Run]) -> list[float]:
    """The times, one a run."""
    return [run.seconds for run in runs]


def mebibytes(runs: list[Run]) -> list[float]:
    """The peaks, one a run."""
    return [run.peak_bytes / 2**20 for run in runs]


def run(main: Callable[[], BenchmarkRecord]) -> None:
    """`main` with pinned threads, then its table; a user's mistake ends in one line."""
    pin_threads()
    try:
        record = main()
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
    sys.stdout.write(table([record]))
