"""The warm Python of `python -m gcd.repro`: every stage is a fork of one process."""

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

from gcd.repro.warm_python import warm_python
from tests.conftest import ROOT

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
