"""`python -m gcd.repro` by its parts; its whole runs are in test_reproduction.py."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tqdm as tqdm_package
from tqdm import tqdm

from gcd.core.errors import UserError
from gcd.core.timings import TIMINGS
from gcd.repro import durations, jobs, pipeline, progress, schedule
from gcd.repro import warm_python as repro_python
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


def test_what_a_stage_needs() -> None:
    assert pipeline.needed_by(["d"], UPSTREAM) == {"a", "b", "c", "d"}
    assert pipeline.needed_by(["c", "e"], UPSTREAM) == {"a", "c", "e"}
    with pytest.raises(UserError, match=r"--stages: no stage `f`; `dvc stage list`"):
        pipeline.needed_by(["a", "f"], UPSTREAM)


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
    assert progress.bar_text(half).startswith("train: 10/20 [1:00:0")  # or a second more
    assert progress.bar_seconds_left(half) == pytest.approx(3600, abs=9)
    assert progress.bar_seconds_left(first) == 0  # "?"
    assert not progress.is_bar("a line with 50% of something")


def test_the_stage_s_own_line_is_its_error() -> None:
    begin = "Running stage 'fit@x':\n> ${STAGE_PYTHON:-python} -m stages.fit x\n"
    end = (
        "ERROR: failed to reproduce 'fit@x': failed to run: python -m stages.fit x, exited with 1\n"
    )
    for bar in ("", "\r!\r \r"):  # DVC's, when it writes to a terminal
        text = f"{begin}train: 50%|##\rfit: no examples\n{bar}{end}"
        assert jobs.own_error(text) == "fit: no examples"
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
    monkeypatch.setattr(repro_python, "NVIDIA", ROOT)
    set_machine(16, 128)
    assert jobs.default_jobs() == 1


# --- Jobs, with a stand-in for DVC ----------------------------------------------------------------

STAND_IN = """
import sys, time
stage = sys.argv[-1]
print(f"Running stage '{stage}':\\n> python -m stages.{stage}", flush=True)
sys.path.append(sys.argv[1])
from tqdm import tqdm
try:
    with tqdm(total=4, initial=2, desc="train", unit="step") as bar:
        bar.update(1)
        bar.refresh()
        time.sleep({"slow": 60, "long": 2}.get(stage, 0.1))
except KeyboardInterrupt:
    sys.exit(130)
if stage == "bad":
    print("\\nbad: one line\\nERROR: failed to reproduce 'bad': it exited with 1")
    sys.exit(1)
"""


@pytest.fixture
def run_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[dict[str, set[str]]], list[str]]:
    """Runs stages of the stand-in, two at a time; returns the lines of the display."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    (tmp_path / "logs").mkdir()
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    command = f"python -I -S stand_in.py {Path(tqdm_package.__file__).parents[1]}"

    def run(upstream: dict[str, set[str]]) -> list[str]:
        with progress.Display() as display:
            jobs.Run(upstream, dict.fromkeys(upstream, 9.0), 2, command, display).run()
        return capsys.readouterr().out.splitlines()

    return run


def test_stages_run_in_order_and_show_their_bars(
    run_stages: Callable[[dict[str, set[str]]], list[str]], tmp_path: Path
) -> None:
    shown = run_stages({"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}})
    said = [line.split("  ", 1)[1].split(",")[0] for line in shown if "stages done" not in line]
    assert said[:4] == ["a begins", "a ends", "b begins", "c begins"]
    assert set(said[4:6]) == {"b ends", "c ends"}
    assert said[6:] == ["d begins", "d ends"]
    assert any("0/4 stages done" in line and "train: 3/4 [" in line for line in shown)
    log = (tmp_path / "logs/d.log").read_text()
    assert log.startswith("Running stage 'd':\n> python -m stages.d\n")
    assert " 75%|" in log


def test_after_a_failure_nothing_begins(
    run_stages: Callable[[dict[str, set[str]]], list[str]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^bad: one line$"):
        run_stages({"bad": set(), "long": set(), "after": {"bad"}, "alone": set()})
    assert {file.stem for file in tmp_path.glob("logs/*")} == {"bad", "long"}


def test_ctrl_c_interrupts_what_runs(
    run_stages: Callable[[dict[str, set[str]]], list[str]], tmp_path: Path
) -> None:
    def press() -> None:
        while "75%" not in (tmp_path / "logs/slow.log").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    (tmp_path / "logs/slow.log").touch()
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_stages({"slow": set()})
    thread.join()
    assert not [child for child in psutil.Process().children() if "stand_in.py" in child.cmdline()]
