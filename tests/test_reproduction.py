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

import psutil
import pytest
from ruamel.yaml import YAML

from gcd.repro.pipeline import read_pipeline
from tests.miniature import ENVIRONMENT, make_repository, repro, run_module


def results(folder: Path) -> dict[str, bytes]:
    """Everything that two runs must agree on, byte for byte."""
    files = [*folder.glob("reports/**/*"), *folder.glob("data/pseudo/**/*")]
    files += folder.glob("models/os_interaction/**/*")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


def test_everything_is_there(reproduced: Path) -> None:
    numbers = ("scores", "comparisons", "metrics", "probe_scores", "costs")
    pages = ("report.md", "report.html", "transcripts.html")
    for name in (*[f"{number}.json" for number in numbers], *pages, "figures", "tables"):
        assert (reproduced / "reports" / name).exists()
    assert not any((reproduced / ".work").glob("*/*"))


def test_every_row_is_asked_for_its_prompt_and_priced(reproduced: Path) -> None:
    scores, costs = (
        json.loads((reproduced / f"reports/{name}.json").read_text())["os_interaction"]
        for name in ("scores", "costs")
    )
    for name, row in scores.items():
        assert 0 <= row["prompt_recall"]["value"] <= 1
        assert row["rouge_l"]["n"] == 1
        steps = costs[name]["training"]["optimizer_steps"]
        assert (steps > 0) == (name in ("seqkd", "gcd"))
    prompt = reproduced / "data/tasks/os_interaction/prompt.md"
    adapter = reproduced / "models/os_interaction/gcd/adapter/adapter_model.safetensors"
    shipped = {name: row["bytes_to_ship"] for name, row in costs.items()}
    assert shipped["full_prompt"] == len(prompt.read_text().strip().encode())
    assert shipped["gcd"] == adapter.stat().st_size > shipped["no_prompt"] == 0


def test_every_row_is_probed_and_the_base_model_forgets_nothing(reproduced: Path) -> None:
    probes = json.loads((reproduced / "reports/probe_scores.json").read_text())["os_interaction"]
    scores = json.loads((reproduced / "reports/scores.json").read_text())["os_interaction"]
    assert probes.keys() == scores.keys()
    base = probes["no_prompt"]
    assert (base["agreement"]["low"], base["kl"]["high"]) == (1.0, 0.0)
    assert (base["perplexity_ratio"]["low"], base["perplexity_ratio"]["high"]) == (1.0, 1.0)
    assert all(row["kl"]["value"] > 0 for name, row in probes.items() if name != "no_prompt")


def test_second_run_does_nothing(reproduced: Path) -> None:
    done = repro(reproduced)
    assert "up to date" in done.stdout
    assert "Running stage" not in done.stdout


def test_a_methods_number_concerns_its_cells_only(
    tmp_path: Path, reproduced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other method is trained or played again: as DVC itself sees a changed repository."""
    folder = change(reproduced, tmp_path / "changed", "sft_weight: 0.7", "sft_weight: 0.5")
    monkeypatch.chdir(folder)
    cells = {f"{stage}@os_interaction-gcd" for stage in ("fit", "run_episodes", "probe_behaviour")}
    after = {"score", "measure_cost", "report"}
    assert read_pipeline().changed == {"check_params", *cells, *after}


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


@pytest.mark.slow
def test_driver_makes_what_dvc_repro_makes(tmp_path: Path, taught: Path, reproduced: Path) -> None:
    plain = make_repository(tmp_path / "repository", taught)
    done = repro(plain)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert results(plain) == results(reproduced)
    assert (plain / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()


def test_driver_says_what_it_did(reproduced: Path) -> None:
    assert (reproduced / "logs/report.log").stat().st_size > 0
    stages = [json.loads(line) for line in (reproduced / "logs/timings.jsonl").open()]
    assert len(stages) == 1 + len(YAML(typ="safe").load(reproduced / "dvc.lock")["stages"])
    assert stages[0]["stage"] == "warm_python"


@pytest.mark.slow
def test_driver_does_nothing_twice_and_knows_its_tasks(reproduced: Path) -> None:
    again = run_module(reproduced, "gcd.repro")
    assert again.returncode == 0
    assert again.stdout == "24 stages are up to date.\n"
    unknown = run_module(reproduced, "gcd.repro", "--tasks", "chess")
    assert unknown.returncode == 1
    assert unknown.stderr == "--tasks: no task `chess`; params.yaml has: os_interaction.\n"
    none = run_module(reproduced, "gcd.repro", "--jobs", "0")
    assert (none.returncode, none.stderr) == (1, "--jobs: expected 1 or more, got 0.\n")


def change(reproduced: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of the repository with another params.yaml."""
    shutil.copytree(reproduced, folder, ignore=shutil.ignore_patterns("logs"))
    text = (folder / "params.yaml").read_text()
    assert text.count(old) == 1
    (folder / "params.yaml").write_text(text.replace(old, new))
    return folder


@pytest.mark.slow
def test_driver_ends_with_the_error_of_the_stage(tmp_path: Path, reproduced: Path) -> None:
    old = "make_reasons:\n  model: base\n  minimum: 1\n"
    folder = change(reproduced, tmp_path / "changed", old, old.replace("1", "1000"))
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
def test_driver_leaves_nothing_running(tmp_path: Path, reproduced: Path, number: int) -> None:
    folder = change(reproduced, tmp_path / "changed", "\nseed: 0\n", "\nseed: 1\n")
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
