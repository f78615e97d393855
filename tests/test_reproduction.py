"""The real pipeline, in miniature: a tiny taught model, a handful of examples, every stage.

What a user meets is tested here, with `dvc repro` and with `python -m gcd.repro`: a complete run, a
second one that does nothing, Ctrl-C and `kill -9` in the middle, and mistakes that end in one line.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from tests import tiny
from tests.conftest import ROOT

SCRIPTS = str(Path(sys.executable).parent)
ENVIRONMENT = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def shrink(params: dict[str, Any]) -> None:
    """Numbers small enough for a minute."""
    params["prepare_model"]["source"] = "path"
    params["prepare_model"]["path"]["folder"] = "mine"
    [task] = params["tasks"].values()
    for split, count in (("demonstrations", 8), ("development", 4), ("test", 6)):
        task[split]["count"] = count
    task["max_turns"] = 3
    params["teacher"]["max_new_tokens"] = 60
    params["run_episodes"]["max_new_tokens"] = 60
    task["synthesis"] |= {"inputs": 6, "per_request": 6, "max_turns": 3}
    task["training"] |= {"epochs": 2, "batch_size": 2}
    params["make_pseudo_inputs"] |= {"minimum": 3, "max_requests": 6}
    params["make_pseudo_inputs"] |= {"demonstrations": 2, "temperature": 1.0}
    for stage in ("make_paired_outputs", "make_reasons", "make_pseudo_conversations"):
        params[stage]["minimum"] = 1
    params["make_pseudo_conversations"] |= {"end_token": "[END]", "live_conversations": 2}
    params["train"]["checkpoint_every"] = 1
    params["train"]["lora"]["rank"] = 4
    params["score"]["bootstrap_samples"] = 100


def make_repository(folder: Path, taught: Path) -> Path:
    """A copy of the repository's sources with one task, shrunken parameters and the tiny model."""
    for name in ("gcd", "stages", "data/prompts"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(taught, folder / "mine")
    (folder / "data/prompts/os_interaction.md").write_text(tiny.PROMPT)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["tasks"] = {"os_interaction": params["tasks"]["os_interaction"]}
    shrink(params)
    yaml.dump(params, folder / "params.yaml")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=folder, check=True, env=ENVIRONMENT)
    return folder


def repro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", "repro", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def results(folder: Path) -> dict[str, bytes]:
    """Everything that two runs must agree on, byte for byte."""
    files = [*folder.glob("reports/**/*"), *folder.glob("data/pseudo/**/*")]
    files += folder.glob("models/os_interaction/**/*")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """A repository after a whole `dvc repro`."""
    folder = make_repository(tmp_path_factory.mktemp("repository"), taught)
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


def test_everything_is_there(reproduced: Path) -> None:
    for name in ("scores.json", "costs.json", "report.md", "figures", "tables"):
        assert (reproduced / "reports" / name).exists()
    assert not any((reproduced / ".work").glob("*/*"))


def test_second_run_does_nothing(reproduced: Path) -> None:
    done = repro(reproduced)
    assert "up to date" in done.stdout
    assert "Running stage" not in done.stdout


@pytest.mark.slow
def test_a_forced_run_is_byte_identical(reproduced: Path) -> None:
    before = results(reproduced)
    done = repro(reproduced, "--force")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert results(reproduced) == before


@pytest.mark.slow
def test_killed_stages_continue_to_the_same_result(
    tmp_path: Path, taught: Path, reproduced: Path
) -> None:
    """`kill -9` during the conversations and during fit: the next run completes, byte-identical."""
    folder = make_repository(tmp_path, taught)
    for cell, file in (
        ("make_pseudo_conversations-os_interaction", "conversations-0.json"),
        ("fit-os_interaction-gcd", "checkpoint.pt"),
    ):
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env=ENVIRONMENT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not list(folder.glob(f".work/{cell}/*/{file}")):
            time.sleep(0.01)
        assert process.poll() is None, f"{cell} was over before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert results(folder) == results(reproduced)


def run_module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """A repository after a whole run of `gcd.repro`: two stages at a time, in warm Python."""
    folder = make_repository(tmp_path_factory.mktemp("driven"), taught)
    done = run_module(folder, "gcd.repro", "--jobs", "2")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


@pytest.mark.slow
def test_driver_makes_what_dvc_repro_makes(driven: Path, reproduced: Path) -> None:
    assert results(driven) == results(reproduced)
    assert (driven / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()
    assert "up to date" in repro(driven, "--dry").stdout
    assert (driven / "logs/report.log").stat().st_size > 0
    stages = [json.loads(line) for line in (driven / "logs/timings.jsonl").open()]
    assert len(stages) == 1 + len(YAML(typ="safe").load(driven / "dvc.lock")["stages"])
    assert stages[0]["stage"] == "warm_python"


@pytest.mark.slow
def test_driver_does_nothing_twice_and_knows_its_tasks(driven: Path) -> None:
    again = run_module(driven, "gcd.repro")
    assert again.returncode == 0
    assert again.stdout == "19 stages are up to date.\n"
    unknown = run_module(driven, "gcd.repro", "--tasks", "chess")
    assert unknown.returncode == 1
    assert unknown.stderr == "--tasks: no task `chess`; params.yaml has: os_interaction.\n"
    none = run_module(driven, "gcd.repro", "--jobs", "0")
    assert (none.returncode, none.stderr) == (1, "--jobs: expected 1 or more, got 0.\n")


def change(driven: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of the repository with another params.yaml."""
    shutil.copytree(driven, folder, ignore=shutil.ignore_patterns("logs"))
    text = (folder / "params.yaml").read_text()
    assert text.count(old) == 1
    (folder / "params.yaml").write_text(text.replace(old, new))
    return folder


@pytest.mark.slow
def test_driver_ends_with_the_error_of_the_stage(tmp_path: Path, driven: Path) -> None:
    old = "make_reasons:\n  model: base\n  minimum: 1\n"
    folder = change(driven, tmp_path / "changed", old, old.replace("1", "1000"))
    done = run_module(folder, "gcd.repro")
    assert done.returncode == 1
    assert done.stderr.startswith("make_reasons: ")
    assert "make_reasons.minimum" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "make_reasons@os_interaction fails, its output is in logs/" in done.stdout
    assert "fit@" not in done.stdout


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_driver_leaves_nothing_running(tmp_path: Path, driven: Path, number: int) -> None:
    folder = change(driven, tmp_path / "changed", "\nseed: 0\n", "\nseed: 1\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "gcd.repro"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(folder.glob(".work/make_pseudo_inputs-*/*")):
        time.sleep(0.01)
    assert len(processes_in(folder)) > 3  # the driver, warm Python, DVC and the stage
    process.send_signal(number)
    said = process.communicate()[0]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert said.endswith("Finished work is kept; the next run continues.\n")
    else:
        assert process.returncode == -signal.SIGKILL
        end = time.monotonic() + 20
        while processes_in(folder) and time.monotonic() < end:
            time.sleep(0.1)
    assert processes_in(folder) == []


@pytest.mark.parametrize(
    ("old", "new", "stage", "message"),
    [
        (
            "  max_length:",
            "  length:",
            ["stages.check_params"],
            "key `train.max_length` is missing",
        ),
        (
            "  source: path",
            "  source: web",
            ["stages.check_params"],
            "'wheel', 'hub', 'path' or 'tiny'",
        ),
        ("folder: mine", "folder: nowhere", ["stages.prepare_model"], "holds no config.json"),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path, taught: Path, old: str, new: str, stage: list[str], message: str
) -> None:
    folder = make_repository(tmp_path, taught)
    text = (folder / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new))
    done = run_module(folder, *stage)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_truncated_model_and_wrong_arguments(tmp_path: Path, taught: Path) -> None:
    folder = make_repository(tmp_path, taught)
    weights = folder / "mine/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run_module(folder, "stages.prepare_model")
    assert done.returncode == 1
    assert "not a complete causal language model" in done.stderr
    assert not (folder / "models/base").exists()
    assert run_module(folder, "stages.fit", "os_interaction").returncode == 2


def test_corrupt_line_names_file_and_line(reproduced: Path) -> None:
    path = reproduced / "data/pseudo/os_interaction/paired_outputs.jsonl"
    kept = path.read_text()
    path.unlink()  # DVC may have linked it to its cache
    path.write_text(kept + '{"index": 99\n')
    done = run_module(reproduced, "stages.make_reasons", "os_interaction")
    path.write_text(kept)
    assert done.returncode == 1
    assert f"paired_outputs.jsonl, line {len(kept.splitlines()) + 1}" in done.stderr
    assert "Traceback" not in done.stderr
