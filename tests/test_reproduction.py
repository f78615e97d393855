"""The real `dvc repro`, in miniature: a tiny taught model, a handful of examples, every stage.

What a user meets is tested here: a complete run, a second one that does nothing, `kill -9` in the
middle, and mistakes that end in one line.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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
    params["make_pseudo_conversations"]["end_token"] = "[END]"
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
        ("make_pseudo_conversations-os_interaction", "replies.jsonl"),
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
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, f"{cell} was over before it could be killed"
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert results(folder) == results(reproduced)


def run_stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


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
    done = run_stage(folder, *stage)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_truncated_model_and_wrong_arguments(tmp_path: Path, taught: Path) -> None:
    folder = make_repository(tmp_path, taught)
    weights = folder / "mine/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = run_stage(folder, "stages.prepare_model")
    assert done.returncode == 1
    assert "not a complete causal language model" in done.stderr
    assert not (folder / "models/base").exists()
    assert run_stage(folder, "stages.fit", "os_interaction").returncode == 2


def test_corrupt_line_names_file_and_line(reproduced: Path) -> None:
    path = reproduced / "data/pseudo/os_interaction/paired_outputs.jsonl"
    kept = path.read_text()
    path.unlink()  # DVC may have linked it to its cache
    path.write_text(kept + '{"index": 99\n')
    done = run_stage(reproduced, "stages.make_reasons", "os_interaction")
    path.write_text(kept)
    assert done.returncode == 1
    assert f"paired_outputs.jsonl, line {len(kept.splitlines()) + 1}" in done.stderr
    assert "Traceback" not in done.stderr
