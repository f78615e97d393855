"""Points that run: side by side, killed and gone on with, saved as experiments of DVC.

On a repository of a few lines; the real pipeline is in test_experiments_whole.py.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.experiments import __main__ as commands
from gcd.experiments import queue, worktrees
from gcd.experiments.points import Point
from gcd.experiments.queue import run_points, share
from tests.miniature import ENVIRONMENT

IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "nobody", "EMAIL": "nobody@localhost"}.items()
}


def point(name: str, *stages: str, text: str = "", **params: Any) -> Point:
    return Point(name, name, {}, text, params, list(stages))


# --- The queue, with stand-ins for points ---------------------------------------------------------


def test_cores_are_shared_out() -> None:
    assert share({0, 1, 2, 5}, 2) == [{0, 2}, {1, 5}]
    assert share({3}, 4) == [{3}]
    assert share({0, 1}, 1) == [{0, 1}]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Points that run `stages[0]` as Python and save nothing; returns what becomes of them."""
    happened: list[str] = []

    def prepare(one: Point, commit: str) -> Path:
        folder = tmp_path / one.name
        folder.mkdir()
        happened.append(f"{one.name} begins")
        return folder

    def save(one: Point, folder: Path) -> None:
        happened.append(f"{one.name} saved")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue, "SECONDS", 0.02)
    monkeypatch.setattr(worktrees, "prepare", prepare)
    monkeypatch.setattr(worktrees, "save", save)
    monkeypatch.setattr(
        worktrees, "command", lambda one: [sys.executable, "-I", "-S", "-c", *one.stages]
    )
    return happened


SLOW, FAST, BAD = "import time; time.sleep(1)", "pass", "import sys; sys.exit('bad: no luck')"


def test_points_run_side_by_side_and_a_failed_one_stops_no_other(
    stand_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_core = sorted(os.sched_getaffinity(0))[0]
    told: list[int] = []
    points = [point("a", SLOW), point("b", BAD), point("c", FAST), point("d", FAST)]
    with pytest.raises(UserError, match=r"1 of 4 points failed, .* b: bad: no luck \(whole outp"):
        run_points(points, "", [{one_core}, {one_core}], lambda: told.append(1))
    assert stand_in[:2] == ["a begins", "b begins"]
    assert stand_in.index("c begins") < stand_in.index("a saved")
    assert {line for line in stand_in if "saved" in line} == {"a saved", "c saved", "d saved"}
    assert len(told) == 3
    assert (worktrees.LOGS / "b.log").read_text() == "bad: no luck\n"


def test_a_point_keeps_to_its_cores(stand_in: list[str], tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    shown = "import os; open('cores', 'w').write(str(os.sched_getaffinity(0)))"
    run_points([point("a", shown)], "", [{core}], lambda: None)
    assert (tmp_path / "a/cores").read_text() == str({core})


def test_ctrl_c_interrupts_what_runs(stand_in: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log = worktrees.LOGS / "a.log"

    def press(seconds: float) -> None:
        while "ready" not in log.read_text():
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", press)
    with pytest.raises(KeyboardInterrupt):
        waits = "import time; print('ready', flush=True); time.sleep(60)"
        run_points([point("a", waits)], "", [os.sched_getaffinity(0)], lambda: None)
    assert "KeyboardInterrupt" in log.read_text()
    assert not psutil.Process().children()


KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gcd.experiments import worktrees
from gcd.experiments.points import Point
worktrees.command = lambda point: [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
child = worktrees.start(Point("a", "a", {}, "", {}, []), Path(), os.sched_getaffinity(0))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_kill_9_leaves_nothing_running(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, root], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.communicate()
    with suppress(psutil.NoSuchProcess):
        child.wait(10)
    assert not child.is_running()


def test_only_what_is_missing_runs_and_a_shared_point_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ablations share their default; what an earlier run saved is not run again."""
    saved, ran, seen = {"old": {"scores": 1}}, [], []

    def run(points: list[Point], commit: str, slots: Any, told: Any) -> None:
        for one in points:
            ran.append(one.name)
            saved[one.name] = {"scores": 2}
            told()

    monkeypatch.setattr(commands, "read_saved", lambda one, commit: saved.get(one.name))
    monkeypatch.setattr(commands, "run_points", run)
    points = [point(name) for name in ("default", "old", "a", "default", "b")]
    commands.complete(points, "", lambda found: seen.append(sorted(found)))
    assert ran == ["default", "a", "b"]
    assert seen[0] == ["old"]
    assert seen[-1] == ["a", "b", "default", "old"]


# --- Worktrees and experiments, on a repository of a few lines ------------------------------------

PIPELINE = """\
stages:
  base:
    cmd: mkdir -p models/base && echo x > models/base/x
    outs:
      - models/base:
          cache: false
  fit:
    cmd: mkdir -p .work && echo fit >> .work/runs && grep '^a' params.yaml > fit.txt
    deps:
      - models/base
    params:
      - a
    outs:
      - fit.txt
  other:
    cmd: grep '^b' params.yaml > other.txt
    params:
      - b
    outs:
      - other.txt
  score:
    cmd: >-
      mkdir -p reports &&
      printf '{"fit": "%s", "other": "%s"}' "$(cat fit.txt)" "$(cat other.txt)"
      > reports/scores.json
    deps:
      - fit.txt
      - other.txt
    metrics:
      - reports/scores.json:
          cache: false
  measure_cost:
    cmd: mkdir -p reports && echo '{}' > reports/costs.json
    deps:
      - fit.txt
    metrics:
      - reports/costs.json:
          cache: false
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed run of the pipeline above, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**ENVIRONMENT, **IDENTITY}.items():
        monkeypatch.setenv(name, value)
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text("a: 1\nb: 1\n")
    Path(".gitignore").write_text("/models/\n/fit.txt\n/other.txt\n/.work/\n/logs/\n")
    Path(".dvcignore").write_text(".work/\n")
    for command in (
        "git init -q",
        "dvc init -q",
        "dvc repro -q",
        "git add -A",
        "git commit -qm run",
    ):
        subprocess.run(command.split(), check=True)
    monkeypatch.setattr(
        worktrees, "command", lambda one: [sys.executable, "-m", "dvc", "repro", *one.stages]
    )
    return tmp_path


def changed(name: str, a: int) -> Point:
    return point(name, "fit", text=f"a: {a}\nb: 2\n", a=a, b=2)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_point_is_an_experiment_and_the_workspace_stays(repository: Path) -> None:
    """Two of them at a time; a stage that was not run is not written down as run."""
    commit = worktrees.clean_commit()
    points = [changed("x-1", 5), changed("x-2", 6)]
    assert worktrees.read_saved(points[0], commit) is None
    cores = os.sched_getaffinity(0)
    run_points(points, commit, [cores, cores], lambda: None)
    for one, value in zip(points, (5, 6), strict=True):
        saved = worktrees.read_saved(one, commit)
        # `other` sees another `b`, and was not asked for: its output is the commit's.
        assert saved == {"scores": {"fit": f"a: {value}", "other": "b: 1"}, "costs": {}}
        lock = YAML(typ="safe").load(
            git("show", f"{worktrees.reference(one.name, commit)}:dvc.lock")
        )
        assert lock["stages"]["fit"]["params"]["params.yaml"] == {"a": value}
        assert lock["stages"]["other"]["params"]["params.yaml"] == {"b": 1}
    assert worktrees.read_saved(changed("x-1", 7), commit) is None  # another definition
    assert git("status", "--porcelain") == ""
    assert (repository / "fit.txt").read_text() == "a: 1\n"
    assert list(worktrees.FOLDER.iterdir()) == []
    assert len(git("worktree", "list").splitlines()) == 1
    Path("params.yaml").write_text("a: 5\nb: 2\n")
    done = subprocess.run(["dvc", "repro"], capture_output=True, text=True, check=True)
    assert "Stage 'fit' is cached - skipping run" in done.stdout
    assert "Running stage 'other'" in done.stdout  # the cache does not claim to know it


@pytest.mark.slow
def test_what_a_killed_point_had_begun_is_there_for_the_next_run(repository: Path) -> None:
    commit = worktrees.clean_commit()
    one = changed("x-1", 5)
    folder = worktrees.prepare(one, commit)
    (folder / ".work").mkdir(exist_ok=True)
    (folder / ".work/checkpoint").write_text("half")
    (folder / "params.yaml").write_text("a: 99\n")  # as it was defined before
    assert worktrees.prepare(one, commit) == folder
    assert (folder / ".work/checkpoint").read_text() == "half"
    assert (folder / "params.yaml").read_text() == one.text
    assert (folder / "fit.txt").read_text() == "a: 1\n"  # out of the cache
    assert (folder / "models/base/x").samefile("models/base/x")
    run_points([one], commit, [os.sched_getaffinity(0)], lambda: None)
    saved = worktrees.read_saved(one, commit)
    assert saved is not None
    assert saved["scores"]["fit"] == "a: 5"


@pytest.mark.slow
def test_experiments_need_a_commit_and_a_run(repository: Path) -> None:
    Path("params.yaml").write_text("a: 2\nb: 1\n")
    with pytest.raises(UserError, match=r"run the last commit, and params\.yaml differs from it"):
        worktrees.clean_commit()
    git("checkout", "params.yaml")
    worktrees.clean_commit()
    Path("models").rename("elsewhere")
    with pytest.raises(UserError, match=r"models/base: no such folder\. Run `make repro` first"):
        worktrees.clean_commit()
