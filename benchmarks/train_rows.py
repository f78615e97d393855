"""What each trained row takes beside SeqKD: time, tokens a second and memory of its `fit`.

python -m benchmarks.train_rows

Every method of params.yaml runs its own `stages.fit` in a process of its own, once for each row
that it trains by itself, on the first pseudo conversations and for a few epochs: loading the model
and all that precedes the training loop counts. Nothing outside a scratch folder is written. The
reference is SeqKD, in the same repeat.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tqdm import tqdm

from benchmarks.measure import compare, run
from benchmarks.results import BenchmarkRecord, Comparison, write_record
from benchmarks.settings import FILE as SETTINGS
from benchmarks.settings import CommonSettings, TrainRowsSettings, read_settings
from gcd.core.base_model import BASE
from gcd.core.errors import UserError
from gcd.core.params import FILE, load_file
from gcd.data import pseudo_files, task_folder
from gcd.profiles import merge

REFERENCE = "seqkd"


@dataclass(frozen=True)
class Fit:
    """A run of `stages.fit`. `tokens` were read; 0 where nothing was trained."""

    seconds: float
    peak_bytes: int
    tokens: int


@dataclass(frozen=True)
class TrainedRow:
    """What `fit` of `method` is run with to train one row: its section of params.yaml."""

    method: str
    section: dict[str, Any]


def trained_rows(methods: dict[str, Any], settings: TrainRowsSettings) -> dict[str, TrainedRow]:
    """By name, each method with its training shortened, or one of it for each row it trains.

    Raises:
        UserError: the method has no number that is to be shortened, or no list of variants.
    """
    rows = {}
    for method, given in methods.items():
        section = deepcopy(given)
        merge(section, settings.shortened.get(method, {}), SETTINGS)
        if method not in settings.variants:
            rows[method] = TrainedRow(method, section)
            continue
        key = settings.variants[method]
        if not isinstance(section.get(key), list):
            raise UserError(
                f"{SETTINGS}: `train_rows.variants.{method}`: expected a list of "
                f"`methods.{method}` in {FILE}, got {key!r}."
            )
        for value in section[key]:
            rows[f"{method}_{value}"] = TrainedRow(method, {**section, key: [value]})
    return rows


def make_scratch(folder: Path, task: str, row: TrainedRow, settings: TrainRowsSettings) -> None:
    """A repository with the first conversations only, and params.yaml with this row alone."""
    for path in (BASE, task_folder(task)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).symlink_to(path.resolve())
    for path in pseudo_files(task):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines[: settings.conversations] if path.stem == "conversations" else lines
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(kept), encoding="utf-8")
    params: dict[str, Any] = load_file()
    params["tasks"][task]["training"]["epochs"] = settings.epochs
    params["methods"][row.method] = row.section
    YAML(typ="safe").dump(params, folder / FILE)


def fit(folder: Path, task: str, method: str) -> Fit:
    """Run a method's `fit` in `folder`; raises UserError if it fails."""
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-m", "stages.fit", task, method]
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": root},
            stdout=log,
            stderr=log,
        )
        _, status, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    if status:
        last = (folder / "log").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise UserError(f"`fit {task} {method}` failed: {' '.join(last)}")
    trained = folder / "models" / task / method
    # A first phase has a record of its own, which the row's counts as well.
    rows = [path for path in (trained, *sorted(trained.glob(f"{method}_*"))) if path.is_dir()]
    records = [path / "training.json" for path in rows if (path / "training.json").exists()]
    tokens = sum(json.loads(path.read_text(encoding="utf-8"))["read_tokens"] for path in records)
    return Fit(taken, used.ru_maxrss * 1024, tokens)


def compare_rows(runs: dict[str, list[Fit]]) -> list[Comparison]:
    """Three comparisons with SeqKD for each trained row."""
    trained = [name for name in runs if name != REFERENCE and runs[name][0].tokens]
    comparisons = []
    figures: list[tuple[str, str, Any]] = [
        ("time of fit", "s", lambda one: one.seconds),
        ("tokens a second", "", lambda one: one.tokens / one.seconds),
        ("peak memory", "MiB", lambda one: one.peak_bytes / 2**20),
    ]
    for name in trained:
        for figure, unit, read in figures:
            ours, reference = (list(map(read, runs[side])) for side in (name, REFERENCE))
            comparisons.append(
                compare(f"{name}, {figure}", ours, reference, unit, bar=None, inverse=True)
            )
    return comparisons


def main() -> BenchmarkRecord:
    task = read_settings("common", CommonSettings).task
    settings = read_settings("train_rows", TrainRowsSettings)
    rows = trained_rows(load_file()["methods"], settings)
    if REFERENCE not in rows:
        raise UserError(f"{FILE}: expected {REFERENCE!r} under `methods`, the reference here.")
    runs: dict[str, list[Fit]] = {name: [] for name in rows}
    with tqdm(total=settings.repeats * len(rows), unit="fit") as bar:
        for _ in range(settings.repeats):
            for name, row in rows.items():
                bar.set_description(name)
                with tempfile.TemporaryDirectory() as scratch:
                    make_scratch(Path(scratch), task, row, settings)
                    runs[name].append(fit(Path(scratch), task, row.method))
                bar.update(1)
    comparisons = compare_rows(runs)
    if not comparisons:
        raise UserError(f"{FILE}: no row but {REFERENCE} is trained; there is nothing to show.")
    facts = {
        "tokens": {name: done[0].tokens for name, done in runs.items() if done[0].tokens},
        "task": task,
    }
    return write_record("train_rows", comparisons, settings.repeats, settings.model_dump(), facts)


if __name__ == "__main__":
    run(main)
