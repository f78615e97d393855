"""How a stage ends: in one line on a mistake, with what it had finished kept."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.params import Params
from gcd.core.stage import work_folder
from gcd.core.timings import loading
from tests.conftest import ROOT


def script(tmp_path: Path, body: str) -> list[str]:
    """A command that runs `body` as a stage."""
    file = tmp_path / "some_stage.py"
    source = f"""\
from pathlib import Path

import gcd.core
from gcd.core.errors import UserError
from gcd.core.stage import run


def main() -> None:
{textwrap.indent(textwrap.dedent(body), "    ")}

run(main)
"""
    file.write_text(source)
    return [sys.executable, str(file)]


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_users_mistake_is_one_line(tmp_path: Path) -> None:
    done = call(script(tmp_path, 'raise UserError("expected a, found b; write a")'), tmp_path)
    assert done.returncode == 1
    assert done.stderr == "some_stage: expected a, found b; write a\n"
    assert not (tmp_path / "logs").exists()


def test_a_programmers_mistake_keeps_its_traceback(tmp_path: Path) -> None:
    done = call(script(tmp_path, "1 / 0"), tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_control_c_is_one_line(tmp_path: Path) -> None:
    command = script(tmp_path, 'import time\nprint("on", flush=True)\ntime.sleep(60)')
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ("some_stage: interrupted. Finished work is kept; `dvc repro` continues.\n")


WRITE_MUCH = """
    import torch
    from gcd.core.records import write_bytes, write_text
    write_text(Path("finished.txt"), "kept")
    {write}
"""


@pytest.mark.parametrize(
    "write",
    [
        'write_bytes(Path("big"), bytes(2**21))',
        "from safetensors.torch import save_file; save_file({'x': torch.zeros(2**19)}, 'big')",
        'import pandas; pandas.DataFrame({"x": range(2**18)}).to_csv("big")',
    ],
)
def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path: Path, write: str) -> None:
    """On a real file system of 1 MiB, mounted in a namespace of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && cd "$0" && "$@"; status=$?; ls; exit $status'
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    command = script(tmp_path, WRITE_MUCH.format(write=write))
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user make a namespace to mount a small disk in")
    done = call([*unshare, "sh", "-c", mount, str(disk), *command], tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "some_stage: the disk is full. Free space, then `dvc repro` continues.\n"
    )
    assert "finished.txt" in done.stdout.split()


def params(seed: int) -> Params:
    return Params({"seed": seed}, {"seed": seed})


def test_unfinished_work_is_found_again_by_the_same_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "given.txt"
    given.write_text("one")
    with pytest.raises(ZeroDivisionError), work_folder("cell", params(0), [given]) as first:
        (first / "half").write_text("half done")
        raise ZeroDivisionError
    with work_folder("cell", params(0), [given]) as again:
        assert again == first
        assert (again / "half").exists()
    assert not first.exists()
    with work_folder("cell", params(1), [given]) as other:
        assert other != first
    given.write_text("two")
    with work_folder("cell", params(0), [given]) as changed:
        assert changed != first
    with (
        pytest.raises(UserError, match=r"missing\.txt: no such file"),
        work_folder("cell", params(0), [tmp_path / "missing.txt"]),
    ):
        pass


def test_nested_loading_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []
    monkeypatch.setattr("gcd.core.timings._loading_seconds", seconds)
    with loading():
        with loading():
            pass
        assert not seconds
    assert len(seconds) == 1
