"""Small sandboxes for the tests, started by a program of the test's choice."""

import os
import shutil
from collections.abc import Callable

import pytest

import gcd.tasks.os_interaction.sandbox
from gcd.tasks.os_interaction import sandbox_command
from gcd.tasks.os_interaction.sandbox import SandboxSettings

Run = Callable[[str], str]
KINDS = ("bubblewrap", "unshare")
MIB = 1 << 20
SETTINGS = SandboxSettings(
    user_id=61000,
    processes=64,
    memory_bytes=512 * MIB,
    disk_bytes=16 * MIB,
    file_bytes=8 * MIB,
    open_files=128,
    cpu_seconds=20,
    command_seconds=3,
    silent_seconds=1,
    script_seconds=5,
    episode_seconds=60,
    output_bytes=1 << 16,
)
AS_ROOT = os.geteuid() == 0


def use(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make new sandboxes use the program `kind`; skip where it does not work."""
    if kind == "unshare":
        unshare = shutil.which("unshare")
        if unshare is None or shutil.which("setpriv") is None:
            pytest.skip("needs unshare and setpriv (util-linux)")
        command = sandbox_command.unshare_command(unshare, SETTINGS.disk_bytes, SETTINGS.user_id)
        complaint = sandbox_command._starts(command)
        if complaint is not None:
            pytest.skip(f"unshare does not work here: {complaint}")
        monkeypatch.setattr(
            gcd.tasks.os_interaction.sandbox, "sandbox_command", lambda *_: (kind, command)
        )
    elif sandbox_command.sandbox_command(SETTINGS.disk_bytes, SETTINGS.user_id)[0] != kind:
        pytest.skip("bubblewrap does not work here")
