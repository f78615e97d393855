"""Training on-policy: resuming, the log, the warm start, two processes."""

import csv
import json
import math
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from gcd.core.chat import prompt_ids
from gcd.core.shared_prefix import compute_prefix
from gcd.training.lora import attach_lora
from gcd.training.on_policy import (
    Replies,
    draw_states,
    on_policy_term,
    turn_states,
)
from gcd.training.settings import OnPolicySettings
from gcd.training.trainer import Trainer, train
from tests import tiny
from tests.test_multiple_processes import (
    ENVIRONMENT,
    assert_equal_training,
    command,
    copy,
    miniature,  # noqa: F401  (a fixture)
)
from tests.test_multiple_processes import train as run_fit
from tests.test_on_policy import CONVERSATION, PROMPT, SETTINGS
from tests.test_training import SETTINGS as TRAIN


def run(tokenizer: Any, out: Path, settings: OnPolicySettings = SETTINGS) -> dict[str, bytes]:
    """Train a fresh student; its files and the digest of its weights."""
    student = attach_lora(tiny.make_model(tokenizer), TRAIN, four_bit=False, seed=0)
    with student.disable_adapter():
        prefix = compute_prefix(student.get_base_model(), prompt_ids(tokenizer, PROMPT))
    choices = [turn_states(tokenizer, PROMPT, CONVERSATION, 1000)]
    states = draw_states(choices, settings.steps * settings.batch_size, seed=0)
    replies = Replies(student, tokenizer, prefix, states, settings, batch_tokens=1000)
    saved: dict[str, bytes] = {}

    def save(weights: dict[str, Tensor]) -> None:
        saved.update({name: weight.numpy().tobytes() for name, weight in weights.items()})

    work = out.with_name(f"{out.name}-work")
    work.mkdir(exist_ok=True)
    term = on_policy_term(replies, states, settings)
    train(student, [term], TRAIN, epochs=1, seed=0, work=work, out=out, save=save)
    return saved | {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_killed_run_resumes_to_the_same_bytes(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Checkpoints every second step: killed after 1 it starts anew, after 3 it repeats one."""
    whole = run(tokenizer, tmp_path / "whole")
    step = Trainer.step

    def killed(self: Trainer) -> None:
        if len(self.rows) == steps:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", killed)
        run(tokenizer, tmp_path / "cut")
    assert run(tokenizer, tmp_path / "cut") == whole


def test_the_log_has_entropy_and_length_and_the_divergence_falls(
    tokenizer: Any, tmp_path: Path
) -> None:
    run(tokenizer, tmp_path / "out", SETTINGS.model_copy(update={"steps": 16, "batch_size": 4}))
    with (tmp_path / "out/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    labels = 0.0
    for row in rows:
        assert float(row["loss"]) == float(row["reverse_divergence"])  # the others weigh nothing
        assert 0 < float(row["entropy"]) <= math.log(tiny.SOURCE.vocabulary_size)
        labels += 4 * float(row["reply_tokens"])
        assert int(row["tokens"]) == pytest.approx(labels)
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


# --- The cell -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A miniature repository with a key of this method, and a warm start that goes far: next to a
    random model's own distribution every divergence would be rounding."""
    folder = copy(miniature, tmp_path_factory.mktemp("cell") / "repository")
    section = """\
  on_policy:
    warm_start: seqkd
    joint_loss:
      sft_weight: 0.5
      pg_batch_size: 1
      pg_every: 2
      pg_max_length: null
      pg_target: prompt_and_reason
      pg_reasons: own
    steps: 3
    batch_size: 2
    learning_rate: 0.001
    temperature: 1.0
    max_new_tokens: 6
    top_k: 16
"""
    file = folder / "params.yaml"
    text = file.read_text().replace("\nmethods:\n", f"\nmethods:\n{section}")
    steep = text.replace("  learning_rate: 0.001\n  warmup", "  learning_rate: 0.03\n  warmup")
    assert steep != text
    file.write_text(steep)
    return folder


def trained(folder: Path) -> Path:
    return folder / "models/os_interaction/on_policy"


@pytest.fixture(scope="module")
def one(cell: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after `fit`."""
    folder = copy(cell, tmp_path_factory.mktemp("one") / "repository")
    run_fit(folder, *command("on_policy", 1))
    return folder


def test_the_warm_start_is_the_other_row(one: Path, tmp_path: Path) -> None:
    """Byte for byte; the whole cell took both, and its adapter has moved on."""
    other = copy(one, tmp_path / "other")
    shutil.rmtree(other / "logs")
    run_fit(other, *command("seqkd", 1))
    warm, seqkd = trained(one) / "warm_start", other / "models/os_interaction/seqkd"
    files = {path.relative_to(seqkd) for path in seqkd.rglob("*") if path.is_file()}
    assert files == {path.relative_to(warm) for path in warm.rglob("*") if path.is_file()}
    for file in files:
        assert (warm / file).read_bytes() == (seqkd / file).read_bytes(), file
    adapters = [
        (folder / "adapter/adapter_model.safetensors").read_bytes()
        for folder in (warm, trained(one))
    ]
    assert adapters[0] != adapters[1]
    first, both = (
        json.loads((folder / "training.json").read_text()) for folder in (warm, trained(one))
    )
    assert both["optimizer_steps"] == first["optimizer_steps"] + 3
    assert both["trainable_parameters"] == first["trainable_parameters"]
    assert both["flops"] > first["flops"]


@pytest.mark.slow
def test_a_killed_cell_continues_to_the_same_files(cell: Path, one: Path, tmp_path: Path) -> None:
    """`kill -9` in the second phase: the warm start is taken as it is, and the rest is trained."""
    folder = copy(cell, tmp_path / "killed")
    process = subprocess.Popen(
        command("on_policy", 1), cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(folder.glob(".work/*/*/checkpoint.pt")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    said = run_fit(folder, *command("on_policy", 1))
    assert said.count("continuing at step") == 2
    expected, found = (
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in (trained(one), trained(folder))
    )
    assert found == expected


@pytest.mark.slow
def test_two_processes_sample_and_train_what_one_does(
    cell: Path, one: Path, tmp_path: Path
) -> None:
    """Every process draws all replies; they are equal because the weights are."""
    two = copy(cell, tmp_path / "two")
    run_fit(two, *command("on_policy", 2))
    one = copy(one, tmp_path / "one")
    # A divergence is a difference of numbers a thousand times as large.
    assert_equal_training(one, two, "on_policy", absolute=1e-6)
