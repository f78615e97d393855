"""Ablations and seeds in miniature: the real pipeline, and both in the report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.miniature import ENVIRONMENT, make_repository, repro, run_module

ABLATIONS = """\
task: os_interaction
method: gcd
ablations:
  weight:
    question: How much imitation?
    axis: λ
    points:
      0.3: {methods.gcd.sft_weight: 0.3}
      0.7: {methods.gcd.sft_weight: 0.7}
      1.0: {methods.gcd.sft_weight: 1.0}
"""
SEEDS = "task: os_interaction\nmethods:\n  - seqkd\n  - gcd\nseeds:\n  - 0\n  - 1\n  - 2\n"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """A repository after a whole run, committed."""
    folder = make_repository(tmp_path_factory.mktemp("experiments"), taught)
    (folder / "experiments/ablations.yaml").write_text(ABLATIONS)
    (folder / "experiments/seeds.yaml").write_text(SEEDS)
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "config", key, "nobody@localhost"], cwd=folder, check=True)
    for command in ("git add -A", "git commit -qm run"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_ablations_end_to_end_killed_in_between(committed: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gcd.experiments", "ablations"],
        cwd=committed,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    begun = ".work/experiments/weight-*/.work/fit-os_interaction-gcd/*/checkpoint.pt"
    while process.poll() is None and not list(committed.glob(begun)):
        time.sleep(0.01)
    assert process.poll() is None, "over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Its points die with it, and warm Python with them; the next run waits for none of them.
    done = run_module(committed, "gcd.experiments", "ablations")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    record = pd.read_csv(committed / "reports/ablations/weight.csv")
    assert list(dict.fromkeys(record["point"])) == [0.3, 0.7, 1.0]
    scores = json.loads((committed / "reports/scores.json").read_text())["os_interaction"]
    own = record[record["default"] & (record["metric"] == "valid_action_rate")].iloc[0]
    assert own["value"] == scores["gcd"]["valid_action_rate"]["value"]
    # λ = 1 is seqkd, to the last number.
    last = record[record["point"] == 1.0].set_index("metric")["value"]
    for metric, estimate in scores["seqkd"].items():
        assert last[metric] == estimate["value"], metric
    again = run_module(committed, "gcd.experiments", "ablations")
    assert "3 of 3 points are saved, 0 to run." in again.stdout
    dirty = subprocess.run(
        ["git", "status", "--porcelain"], cwd=committed, capture_output=True, text=True, check=True
    )
    assert dirty.stdout.split() == ["??", "reports/ablations/weight.csv"]
    shown = subprocess.run(
        ["dvc", "exp", "show", "--csv"],
        cwd=committed,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("ablations-default", "weight-0.3", "weight-1.0"):
        assert name in shown.stdout


@pytest.mark.slow
def test_seeds_end_to_end_and_both_in_the_report(committed: Path) -> None:
    done = run_module(committed, "gcd.experiments", "seeds")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    record = pd.read_csv(committed / "reports/seeds/os_interaction.csv")
    assert set(record["seed"]) == {0, 1, 2}
    assert set(record["row"]) == {"seqkd", "gcd"}
    done = repro(committed)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    report = (committed / "reports/report.md").read_text()
    # Shown, and not called those of another run (which the recorded further rows are, elsewhere).
    seeds = " ".join(report.split("## Seeds: os_interaction")[1].split("\n## ")[0].split())
    assert "rows trained once for each of 3 seeds" in seeds
    assert "came out differently" not in seeds
