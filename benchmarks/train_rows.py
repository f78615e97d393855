"""What each trained method takes beside SeqKD: time, tokens a second and memory of its `fit`.

python -m benchmarks.train_rows

Every method of params.yaml runs its own `stages.fit` in a process of its own, on the first pseudo
conversations and for a few epochs: loading the model and all that precedes the training loop
counts. Nothing outside a scratch folder is written. The reference is SeqKD, in the same repeat.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
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
    """A run of `stages.fit`. `tokens` were read, over all variants; 0 where nothing was trained."""

    seconds: float
    peak_bytes: int
    tokens: int


def make_scratch(folder: Path, task: str, settings: TrainRowsSettings) -> None:
    """A repository with the first conversations only, and params.yaml with less training.

    Raises:
        UserError: params.yaml has no number that is to be shortened.
    """
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
    for method in settings.shortened.keys() & params["methods"].keys():
        merge(params["methods"][method], settings.shortened[method], SETTINGS)
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
    """Three comparisons with SeqKD for each trained method, SeqKD first."""
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
    methods = list(load_file()["methods"])
    if REFERENCE not in methods:
        raise UserError(f"{FILE}: expected {REFERENCE!r} under `methods`, the reference here.")
    runs: dict[str, list[Fit]] = {name: [] for name in methods}
    with tqdm(total=settings.repeats * len(methods), unit="fit") as bar:
        for _ in range(settings.repeats):
            for name in methods:
                bar.set_description(name)
                with tempfile.TemporaryDirectory() as scratch:
                    make_scratch(Path(scratch), task, settings)
                    runs[name].append(fit(Path(scratch), task, name))
                bar.update(1)
    comparisons = compare_rows(runs)
    if not comparisons:
        raise UserError(f"{FILE}: no method but {REFERENCE} is trained; there is nothing to show.")
    facts = {
        "tokens": {name: done[0].tokens for name, done in runs.items() if done[0].tokens},
        "task": task,
    }
    return write_record("train_rows", comparisons, settings.repeats, settings.model_dump(), facts)


if __name__ == "__main__":
    run(main)
