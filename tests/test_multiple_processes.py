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
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from gcd.core import launch
from gcd.core.records import PairedOutput, PseudoConversation, Reason, write_records, write_text
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


def command(method: str, processes: int) -> list[str]:
    launch = [*ACCELERATE, "configs/ddp.yaml", "--num_processes", str(processes)]
    return [*([sys.executable] if processes == 1 else launch), "-m", "stages.fit", TASK, method]


def fit(folder: Path, *call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        call, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def copy(miniature: Path, folder: Path) -> Path:
    shutil.copytree(miniature, folder)
    return folder


def assert_equal_training(folder: Path, other: Path, method: str, absolute: float = 0.0) -> None:
    """The same files with the same numbers, but for rounding; `absolute` is for small losses."""
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
                float(value or "nan"), rel=LOSS_TOLERANCE, abs=absolute, nan_ok=True
            ), column
    adapters = [load_file(out / "adapter/adapter_model.safetensors") for out in (one, two)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weights in adapters[0].items():
        difference = (weights - adapters[1][name]).abs().max()
        assert difference <= WEIGHTS_TOLERANCE, (name, difference)
    assert max(weights.abs().max() for name, weights in adapters[0].items() if "_B" in name) > 1e-3


def timings(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs/timings.jsonl").read_text().splitlines()]


def train(folder: Path, *call: str) -> str:
    """Run to the end; returns what the processes said."""
    done = fit(folder, *call)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(timings(folder)) == 1  # the first process alone writes
    assert not list(folder.glob(".work/*"))
    return done.stderr


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "params.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_two_processes_train_what_one_does(tmp_path: Path, miniature: Path) -> None:
    """GCD: every second step prompt generation joins, with an example for one of the two."""
    folders = {count: copy(miniature, tmp_path / str(count)) for count in (1, 2)}
    for count, folder in folders.items():
        said = train(folder, *command("gcd", count))
        assert said.count("sft: {") == 1
    assert_equal_training(folders[1], folders[2], "gcd")


@pytest.mark.slow
def test_more_processes_than_examples_in_a_batch(tmp_path: Path, miniature: Path) -> None:
    """SeqKD in batches of two on three processes: one idles in every step."""
    folders = {count: copy(miniature, tmp_path / str(count)) for count in (1, 3)}
    for count, folder in folders.items():
        train(folder, *command("seqkd", count))
    assert_equal_training(folders[1], folders[3], "seqkd")


@pytest.mark.slow
def test_a_killed_process_ends_all_and_one_continues(tmp_path: Path, miniature: Path) -> None:
    """`kill -9` of the second of two processes; then a single one continues their checkpoint."""
    folders = [copy(miniature, tmp_path / name) for name in ("whole", "killed")]
    for folder in folders:
        change(folder, "epochs: 2", "epochs: 8")
    train(folders[0], *command("gcd", 1))
    launcher = subprocess.Popen(
        command("gcd", 2),
        cwd=folders[1],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while launcher.poll() is None and not list(folders[1].glob(".work/*/*/checkpoint.pt")):
        time.sleep(0.05)
    assert launcher.poll() is None, "it ended before it could be killed"
    processes = psutil.Process(launcher.pid).children(recursive=True)
    [second] = [process for process in processes if process.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)
    assert launcher.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert not (folders[1] / "models" / TASK).exists()
    said = train(folders[1], *command("gcd", 1))
    assert "continuing at step" in said
    assert_equal_training(folders[0], folders[1], "gcd")


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_divided_model_trains_what_a_whole_one_does(
    tmp_path: Path, miniature: Path, quantization: str
) -> None:
    """FSDP on two processes: the forward pass, checkpoints and the adapter are joint work."""
    folders = [copy(miniature, tmp_path / name) for name in ("whole", "divided")]
    for folder in folders:
        change(folder, "quantization: none", f"quantization: {quantization}")
        change(folder, "gradient_checkpointing: false", "gradient_checkpointing: true")
    train(folders[0], *command("gcd", 1))
    shutil.copy(ROOT / "tests/fsdp_on_cpus.py", folders[1])
    (folders[1] / "fsdp_on_cpus.py").rename(folders[1] / "fit.py")
    train(folders[1], *ACCELERATE, "configs/fsdp_qlora.yaml", "fit.py", TASK, "gcd")
    assert_equal_training(folders[0], folders[1], "gcd")


@pytest.mark.slow
def test_a_method_without_training_is_written_once(tmp_path: Path, miniature: Path) -> None:
    folder = copy(miniature, tmp_path / "prompt")
    train(folder, *command("full_prompt", 2))
    assert (folder / "models" / TASK / "full_prompt/prompt.md").read_text() == tiny.PROMPT


@pytest.mark.slow
def test_a_mistake_ends_all_processes(tmp_path: Path, miniature: Path) -> None:
    """Here all meet it: each says so in one line at most, and none waits for the others."""
    folder = copy(miniature, tmp_path / "mistake")
    (folder / "data/pseudo" / TASK / "conversations.jsonl").write_text("")
    done = fit(folder, *command("seqkd", 2))
    assert done.returncode != 0
    line = "fit: No examples for the loss term `sft`; see data/pseudo/."
    said = [text for text in done.stderr.splitlines() if line in text]
    assert said
    assert set(said) <= {line, f"process 1: {line}"}
    assert len(set(said)) == len(said)
    assert not (folder / "models" / TASK).exists()


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda f: f.stem)
def test_accelerate_knows_every_key_of_our_configurations(file: Path) -> None:
    """Its own reader refuses unknown keys; those of `fsdp_config` are options of its launcher."""
    configuration = load_config_from_file(str(file))
    options = vars(launch_command_parser().parse_args(["script"]))
    assert set(configuration.fsdp_config or {}) <= set(options)
    assert configuration.mixed_precision == "no"  # params.yaml has the precision


def test_the_divided_model_is_divided_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerate makes of configs/fsdp_qlora.yaml in the processes that it starts."""
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", str(ROOT / "configs/fsdp_qlora.yaml"), "x"])
    arguments, _, _ = _validate_launch_command(arguments)
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.reshard_after_forward is True
    assert not plugin.cpu_ram_efficient_loading
    assert launch.sharded()
