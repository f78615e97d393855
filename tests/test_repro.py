"""`python -m gcd.repro` by its parts; its whole runs are in test_reproduction.py."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tqdm import tqdm

from gcd.core.errors import UserError
from gcd.core.timings import TIMINGS
from gcd.repro import durations, jobs, pipeline, progress, schedule
from gcd.repro.warm_python import warm_python
from tests.conftest import ROOT

# a (10 s) comes before b (20 s) and c (5 s), d (1 s) after both; e (24 s) stands alone.
UPSTREAM: dict[str, set[str]] = {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}, "e": set()}
SECONDS = {"a": 10.0, "b": 20.0, "c": 5.0, "d": 1.0, "e": 24.0}


def test_longest_paths() -> None:
    paths = schedule.longest_paths(UPSTREAM, SECONDS)
    assert paths == {"a": 31.0, "b": 21.0, "c": 6.0, "d": 1.0, "e": 24.0}


def test_what_the_longest_chain_begins_with_runs_first() -> None:
    paths = schedule.longest_paths(UPSTREAM, SECONDS)
    assert schedule.ready_stages(UPSTREAM, set(), paths) == [
        "a",
        "e",
    ]  # e is longer, a's chain more
    assert schedule.ready_stages(UPSTREAM, {"a"}, paths) == ["e", "b", "c"]
    assert schedule.ready_stages(UPSTREAM, {"a", "b"}, paths) == ["e", "c"]  # d waits for c


@pytest.mark.parametrize(
    ("number", "left"),
    [
        (1, 60.0),  # the sum
        # a 0-10 and e 0-24; b 10-30 after a; c 24-29 after e; d 30-31. The sum halved is 30.
        (2, 31.0),
        (9, 31.0),  # no more than the longest chain
    ],
)
def test_seconds_left_plays_the_schedule(number: int, left: float) -> None:
    assert schedule.seconds_left(UPSTREAM, set(), {}, SECONDS, number) == left


def test_seconds_left_counts_what_runs() -> None:
    # a is done, e has 7 s to go and b 20: c 7-12, d 20-21.
    assert schedule.seconds_left(UPSTREAM, {"a"}, {"e": 7.0, "b": 20.0}, SECONDS, 2) == 21.0
    assert schedule.seconds_left(UPSTREAM, set(UPSTREAM), {}, SECONDS, 2) == 0.0


def test_expected_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran here counts most, then the recorded run, then other cells of the same stage."""
    monkeypatch.chdir(tmp_path)
    durations.RECORD.parent.mkdir(parents=True)
    durations.RECORD.write_text('{"fit@x-gcd": 100.0, "fit@x-seqkd": 50.0, "score": 1.0}')
    TIMINGS.parent.mkdir()
    lines = [
        {"stage": "fit", "arguments": ["x", "gcd"], "seconds": 70.0},
        {"stage": "fit", "arguments": ["x", "gcd"], "seconds": 80.0},
        {"stage": "score", "arguments": [], "seconds": 2.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    TIMINGS.write_text(text + '{"stage": "fit", "argu')  # killed while it wrote
    stages = ["fit@x-gcd", "fit@x-seqkd", "fit@y-gcd", "score", "prepare@x"]
    own = {
        stage: seconds - durations.DVC_SECONDS
        for stage, seconds in durations.expected_seconds(stages).items()
    }
    assert list(own.values()) == [80.0, 50.0, 65.0, 2.0, durations.UNKNOWN_SECONDS]


def test_slowness_begins_as_expected_and_follows_what_is_seen() -> None:
    assert durations.slowness([], []) == 1.0
    assert durations.slowness([60.0], [180.0]) == 2.0  # (180 + 60) / (60 + 60)
    assert durations.slowness([6000.0], [12000.0]) == pytest.approx(2.0, rel=0.01)


def test_the_committed_record_knows_every_stage() -> None:
    known = json.loads((ROOT / durations.RECORD).read_text())
    cells = pipeline.cells_of([], [], known)
    assert cells == set(known)
    assert all(seconds > 0 for seconds in known.values())


def test_cells_of_a_task() -> None:
    stages = ["score", "fit@ants-gcd", "fit@bees-gcd", "prepare@ants", "prepare@bees"]
    known = ["ants", "bees"]
    assert pipeline.cells_of(["ants"], known, stages) == {"score", "fit@ants-gcd", "prepare@ants"}
    assert pipeline.cells_of(known, known, stages) == set(stages)
    with pytest.raises(UserError, match=r"no task `ant`; params.yaml has: ants, bees\."):
        pipeline.cells_of(["ant"], known, stages)


def test_a_pipeline_without_other_stages_waits_for_none_of_them() -> None:
    only = pipeline.Pipeline(UPSTREAM, {"a", "d"}).only({"b", "d"})
    assert only == pipeline.Pipeline({"b": set(), "d": {"b"}}, {"d"})


def test_lock_is_sorted_and_else_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline.sort_lock(["a"])  # a run that failed before DVC wrote one
    text = (ROOT / "dvc.lock").read_text()
    pipeline.LOCK.write_text(text)
    names = [line[2:-1] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    pipeline.sort_lock([*reversed(names), "unknown"])
    assert pipeline.LOCK.read_text() != text
    pipeline.sort_lock(names)
    assert pipeline.LOCK.read_text() == text


def test_bars_are_read_as_tqdm_draws_them() -> None:
    drawn = io.StringIO()
    with tqdm(total=20, desc="train", unit="step", file=drawn, ncols=90) as bar:
        bar.start_t -= 3600  # as if it had begun an hour ago
        bar.update(10)
        bar.refresh()
    first, *_, half = [
        line for line in drawn.getvalue().split("\r") if "10/20" in line or "0/20" in line
    ]
    assert progress.is_bar(half)
    assert progress.bar_text(half).startswith("train: 10/20 [1:00:00<1:00:00")
    assert progress.bar_seconds_left(half) == 3600
    assert progress.bar_seconds_left(first) == 0  # "?"
    assert not progress.is_bar("a line with 50% of something")


def test_the_stage_s_own_line_is_its_error() -> None:
    begin = "Running stage 'fit@x':\n> ${STAGE_PYTHON:-python} -m stages.fit x\n"
    end = (
        "ERROR: failed to reproduce 'fit@x': failed to run: python -m stages.fit x, exited with 1\n"
    )
    assert jobs.own_error(f"{begin}train: 50%|##\rfit: no examples\n{end}") == "fit: no examples"
    assert jobs.own_error(begin + end) == end.strip()  # killed: DVC says how it ended
    missing = "ERROR: failed to reproduce 'fit@x': missing data 'source': models/base\n"
    assert jobs.own_error(missing) == missing.strip()
    assert jobs.own_error("") == ""


def test_jobs_follow_cores_memory_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_machine(cores: int, gibibytes: float) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        memory = type("Memory", (), {"available": int(gibibytes * 2**30)})
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for cores, gibibytes, expected in ((2, 24, 2), (8, 24, 3), (2, 15.9, 1), (1, 2, 1)):
        set_machine(cores, gibibytes)
        assert jobs.default_jobs() == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(jobs, "NVIDIA", ROOT)
    set_machine(16, 128)
    assert jobs.default_jobs() == 1


# --- Warm Python ----------------------------------------------------------------------------------

PROBE = """
import json, os, sys, time
import torch
if sys.argv[1] == "tell":
    json.dump({
        "name": __name__,
        "arguments": sys.argv,
        "folder": os.getcwd(),
        "variable": os.environ.get("PROBE"),
        "removed": os.environ.get("PROBE_REMOVED"),
        "input": sys.stdin.read(),
        "threads": torch.get_num_threads(),
        "mine": [name for name in sys.modules if name.startswith("gcd.") and name != "gcd.repro"],
    }, sys.stdout)
if sys.argv[1] == "fail":
    sys.exit("one line")
if sys.argv[1] == "die":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "wait":
    open("begun", "w").write(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(7)
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A folder with a running helper, and the client's command."""
    folder = tmp_path_factory.mktemp("warm")
    shutil.copytree(ROOT / "gcd", folder / "gcd", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "probe.py").write_text(PROBE)
    here = Path.cwd()
    os.chdir(folder)
    os.environ["PROBE_REMOVED"] = "in the helper only"
    try:
        with warm_python() as command:
            del os.environ["PROBE_REMOVED"]
            os.chdir(here)
            yield folder, [sys.executable, *command.split()[1:], "-m", "probe"]
            os.chdir(folder)
    finally:
        os.chdir(here)


def start(warm: tuple[Path, list[str]], *arguments: str) -> subprocess.Popen[str]:
    folder, command = warm
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PROBE": "é\udc80", "OMP_NUM_THREADS": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(folder: Path) -> psutil.Process:
    """The process that `probe wait` runs in."""
    file = folder / "begun"
    while not file.exists() or not file.read_text():
        time.sleep(0.01)
    number = int(file.read_text())
    file.unlink()
    return psutil.Process(number)


def test_client_hands_everything_over(warm: tuple[Path, list[str]]) -> None:
    process = start(warm, "tell", "a b")
    said, errors = process.communicate("asked")
    assert (process.returncode, errors) == (0, "")
    folder = warm[0]
    assert json.loads(said) == {
        "name": "__main__",
        "arguments": [str(folder / "probe.py"), "tell", "a b"],
        "folder": str(folder),
        "variable": "é\udc80",
        "removed": None,
        "input": "asked",
        "threads": 2,
        "mine": [],  # the repository's code is read anew by every stage
    }


def test_client_ends_as_its_work_ends(warm: tuple[Path, list[str]]) -> None:
    failed = start(warm, "fail")
    assert failed.communicate() == ("", "one line\n")
    assert failed.returncode == 1
    died = start(warm, "die")
    died.communicate()
    assert died.returncode == -signal.SIGKILL


def test_client_passes_signals_on(warm: tuple[Path, list[str]]) -> None:
    process = start(warm, "wait")
    begun(warm[0])
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 7


def test_without_its_client_the_work_is_killed(warm: tuple[Path, list[str]]) -> None:
    process = start(warm, "wait")
    work = begun(warm[0])
    process.kill()
    process.communicate()
    work.wait(timeout=20)


def test_the_helper_has_one_thread_and_goes_on(warm: tuple[Path, list[str]]) -> None:
    """Others would be missing in a fork. SIGTERM ends it while it imports, later its lifeline."""
    process = start(warm, "wait")
    helper = begun(warm[0]).parent()
    assert helper is not None
    assert helper.num_threads() == 1
    helper.terminate()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 7
    assert helper.is_running()


def test_a_client_without_a_helper_says_so(tmp_path: Path) -> None:
    client = ROOT / "gcd/repro/client.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", client, tmp_path / "none.socket", "-m", "probe"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "logs/warm_python.log" in done.stderr
    assert len(done.stderr.splitlines()) == 1
