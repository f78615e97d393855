"""What the benchmarks write down: reports/benchmarks/<name>.json, and the table of all of them."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from gcd.core.errors import UserError
from gcd.core.records import Record, write_text
from gcd.host import describe_machine

FOLDER = Path("reports/benchmarks")
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "numpy")
HEADER = ("Benchmark", "Figure", "Ours", "Reference", "Ratio", "Bar", "Met")


class Spread(Record):
    """Repeats of one figure."""

    median: float
    low: float
    high: float
    unit: str


class Bar(Record):
    """What the median of a ratio (or, where things grow, of the exponent) has to keep to."""

    kind: Literal["at least", "at most"]
    value: float

    def holds(self, value: float) -> bool:
        return value >= self.value if self.kind == "at least" else value <= self.value


class Comparison(Record):
    """A figure of our side and of the reference, e.g. "seconds a step"; a ratio for each pair.

    `ratio_of` says which way round, e.g. "reference / ours". `exponent` is b of t = a n^b, fitted
    in every repeat, where n grew; the bar is then the exponent's.
    """

    figure: str
    ours: Spread
    reference: Spread
    ratio_of: str
    ratio: Spread
    exponent: Spread | None
    bar: Bar | None

    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        judged = self.exponent or self.ratio
        return self.bar.holds(judged.median) if self.bar else None


class BenchmarkRecord(Comparison):
    """A file of reports/benchmarks/: the main comparison, and `further` ones of the same runs.

    `facts` are what the figures need to be understood, e.g. how many tokens were read.
    """

    name: str
    further: list[Comparison]
    repeats: int
    settings: dict[str, Any]
    facts: dict[str, Any]
    host: dict[str, Any]


def describe_host() -> dict[str, Any]:
    """Processor, threads, memory and versions, as far as the figures depend on them."""
    return {
        **describe_machine(),
        "threads": torch.get_num_threads(),
        "mkl_mode": os.environ["MKL_CBWR"],
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def write_record(
    name: str,
    comparisons: list[Comparison],
    repeats: int,
    settings: dict[str, Any],
    facts: dict[str, Any],
) -> BenchmarkRecord:
    """Write reports/benchmarks/<name>.json; the first of `comparisons` is the main one."""
    main, *further = comparisons
    record = BenchmarkRecord(
        name=name,
        **{field: getattr(main, field) for field in Comparison.model_fields},
        further=further,
        repeats=repeats,
        settings=settings,
        facts=facts,
        host=describe_host(),
    )
    write_text(FOLDER / f"{name}.json", json.dumps(record.model_dump(), indent=2) + "\n")
    return record


def read_record(name: str) -> BenchmarkRecord | None:
    """What `write_record` wrote, None if there is nothing; raises UserError on another file."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return None
    try:
        return BenchmarkRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UserError(
            f"{path}: not a benchmark's record ({error.errors()[0]['msg']}). Delete it and run "
            f"`python -m benchmarks.{name}`."
        ) from error


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _range(values: Spread) -> str:
    shown = f"{_number(values.median)} ({_number(values.low)}-{_number(values.high)})"
    return f"{shown} {values.unit}".rstrip()


def _row(name: str, one: Comparison) -> tuple[str, ...]:
    ratio = _range(one.ratio)
    if one.exponent:
        ratio = f"exponent {_range(one.exponent)}"
    bar = f"{one.bar.kind} {_number(one.bar.value)}" if one.bar else ""
    met = {True: "yes", False: "**no**", None: ""}[one.met()]
    return name, one.figure, _range(one.ours), _range(one.reference), ratio, bar, met


def table(records: Sequence[BenchmarkRecord]) -> str:
    """A Markdown table with a line for every comparison."""
    rows = [_row(record.name, one) for record in records for one in [record, *record.further]]
    lines = [HEADER, (":--", ":--", "--:", "--:", "--:", "--:", ":--"), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
