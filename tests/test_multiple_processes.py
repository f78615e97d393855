"""`stages.fit` under `accelerate launch`: two real processes do what one does.

The tiny model trains from the files that synthesis would have left, with the repository's own
configuration for DDP. Equal means here: within 1e-5 of the largest weight. The sum of a batch's
gradients is taken in another order, and AdamW divides by their size, so a gradient near zero moves
its weight by a rounding error's sign.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file

from gcd.core.records import (
    PairedOutput,
    PseudoConversation,
    Reason,
    write_records,
    write_text,
)
from tests import tiny
from tests.conftest import ROOT

ACCELERATE = [str(Path(sys.executable).parent / "accelerate"), "launch", "--config_file"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
TASK = "os_interaction"
WEIGHTS_TOLERANCE = 1e-5
LOSS_TOLERANCE = 2e-5  # relative; loss.csv shows six digits


def write_pseudo_data(folder: Path) -> None:
    """Five conversations of different lengths, three of their inputs with a reason."""
    pairs, conversations = [], []
    for index in range(5):
        problem = f"How many files are in /{tiny.NOUNS[index]}?"
        turns = [tiny.user(problem), tiny.assistant(tiny.BASH)]
        turns += [tiny.user(tiny.OUTPUT), tiny.assistant(tiny.ANSWER)] * index
        conversations.append(PseudoConversation(index=index, messages=turns, end="committed"))
        pair = {"pseudo_input": problem, "teacher_output": tiny.BASH, "student_output": "Hello."}
        pairs.append(PairedOutput(index=index, **pair))
    reasons = [Reason(index=index, reason="The prompt says so." * index) for index in range(3)]
    write_records(folder / "paired_outputs.jsonl", pairs)
    write_records(folder / "reasons.jsonl", reasons)
    write_records(folder / "conversations.jsonl", conversations)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository just before `fit`: two conversations a step, four steps an epoch and a half."""
    folder = tmp_path_factory.mktemp("miniature")
    for name in ("gcd", "stages", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    yaml = YAML()
    params: dict[str, Any] = yaml.load(ROOT / "params.yaml")
    params["tasks"][TASK]["training"] |= {"epochs": 2, "batch_size": 2}
    params["train"] |= {"checkpoint_every": 1, "micro_batch_tokens": 100}
    params["methods"]["gcd"] |= {"pg_batch_size": 1, "pg_every": 2}
    yaml.dump(params, folder / "params.yaml")
    tokenizer = tiny.make_tokenizer()
    tiny.save(tiny.make_model(tokenizer), tokenizer, folder / "models/base")
    write_text(folder / "models/base/model.json", '{"source": "path"}')
    write_text(folder / "data/tasks" / TASK / "prompt.md", tiny.PROMPT)
    write_pseudo_data(folder / "data/pseudo" / TASK)
    return folder


def launcher(processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable]
    return [*ACCELERATE, "configs/ddp.yaml", "--num_processes", str(processes)]


def fit(folder: Path, method: str, processes: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*launcher(processes), "-m", "stages.fit", TASK, method],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def copy(miniature: Path, folder: Path) -> Path:
    shutil.copytree(miniature, folder)
    return folder


def assert_equal_training(folder: Path, other: Path, method: str) -> None:
    """The same files with the same numbers, but for rounding."""
    one, two = (place / "models" / TASK / method for place in (folder, other))
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*"))
    assert sorted(str(path.relative_to(two)) for path in two.rglob("*")) == names
    for name in ("examples.json", "adapter/adapter_config.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    expected, found = (list(csv.DictReader((out / "loss.csv").open())) for out in (one, two))
    assert len(expected) == len(found) > 1
    for row, other_row in zip(expected, found, strict=True):
        for column, value in row.items():
            number = float(other_row[column] or "nan")
            assert number == pytest.approx(
                float(value or "nan"), rel=LOSS_TOLERANCE, nan_ok=True
            ), column
    adapters = [load_file(out / "adapter/adapter_model.safetensors") for out in (one, two)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weights in adapters[0].items():
        difference = (weights - adapters[1][name]).abs().max()
        assert difference <= WEIGHTS_TOLERANCE, (name, difference)
    assert max(weights.abs().max() for name, weights in adapters[0].items() if "_B" in name) > 1e-3


def timings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs/timings.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["gcd"])
def test_two_processes_train_what_one_does(tmp_path: Path, miniature: Path, method: str) -> None:
    folders = {count: copy(miniature, tmp_path / str(count)) for count in (1, 2)}
    for count, folder in folders.items():
        done = fit(folder, method, count)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(timings(folder)) == 1
        assert not list(folder.glob(".work/*"))
    assert_equal_training(folders[1], folders[2], method)
