"""What the sandbox keeps from an agent, and its limits, each with an actual attack."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcd.tasks.os_interaction.sandbox import Output, Sandbox, SandboxError
from tests.conftest import ROOT
from tests.sandboxes import AS_ROOT, KINDS, MIB, SETTINGS, Run, use


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def sandbox(kind: str) -> Iterator[Sandbox]:
    with Sandbox(SETTINGS) as running:
        yield running


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    return lambda command: sandbox.run(command).text


# What is seen of the host.


def test_no_network(run: Run) -> None:
    assert run("cat /proc/net/dev | grep -c :") in ("0\n", "1\n")
    for address in ("127.0.0.1/22", "1.1.1.1/53"):
        assert "unreachable" in (text := run(f"echo x > /dev/tcp/{address}")) or "refused" in text


def test_host_files_are_the_system_directories_only(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert "No such file" in run(f"cat {secret}")
    assert "No such file" in run(f"ls {ROOT}")
    assert run("ls -A /home /root") == "/home:\n\n/root:\n"
    assert run("grep -v nologin /etc/passwd") == "root:x:0:0:root:/root:/bin/bash\n"
    assert "No such file" in run("cat /etc/shadow /etc/hostname")


def test_nothing_is_written_to_the_host(sandbox: Sandbox, tmp_path: Path) -> None:
    name = f"gcd-{os.getpid()}"
    system = "/usr/bin /usr/sbin /usr/lib /usr/share /etc/alternatives /dev"
    text = sandbox.run(f"for d in {system}; do touch $d/{name} && echo wrote $d; done 2>&1").text
    assert "wrote" not in text.replace("wrote /dev", "")
    sandbox.run(
        f"mkdir -p {tmp_path}; for d in / /tmp /root /etc /usr {tmp_path}; do "
        f"touch $d/{name} || echo failed; done"
    )
    for folder in ("/", "/tmp", "/root", "/etc", "/usr", "/usr/bin", "/dev", tmp_path):
        assert not (os.access(folder, os.X_OK) and Path(folder, name).exists())


def test_starting_leaves_nothing_in_the_hosts_temporary_folder(kind: str) -> None:
    before = set(Path("/tmp").iterdir())
    with Sandbox(SETTINGS) as running:
        running.run("true")
    left = set(Path("/tmp").iterdir()) - before
    assert not [path for path in left if not path.name.startswith("bubblewrap-")]


def test_no_environment_of_the_caller(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCD_TEST_KEY", "caller-key-1234")
    with Sandbox(SETTINGS) as running:
        names = running.run("env | cut -d= -f1 | sort | tr '\\n' ' '").text
        assert set(names.split()) <= {
            *("HOME", "LC_ALL", "OLDPWD", "PATH", "PWD", "SHLVL", "TERM", "TIME_STYLE", "_")
        }
        assert "caller-key" not in running.run("cat /proc/[0-9]*/environ 2>&1").text
        assert "caller-key" not in running.run_script("env; cat /proc/1/environ", []).text


def test_no_capabilities_and_no_way_to_get_some(run: Run) -> None:
    caps = run("grep -E '^Cap|^NoNewPrivs' /proc/self/status").split()
    assert caps[1:10:2] == ["0" * 16] * 5
    assert caps[-1] == "1"
    assert "failed" in run("unshare --user true")
    assert "denied" in run("mount -t tmpfs none /mnt; mkdir -p /m; mount -t tmpfs none /m").lower()
    for place in ("kernel/core_pattern", "user/max_user_namespaces", "kernel/hostname"):
        assert run(f"echo x > /proc/sys/{place} && echo wrote; true").count("wrote") == 0


def test_looks_like_root_and_is_an_unprivileged_user(sandbox: Sandbox) -> None:
    assert sandbox.run("id -u; hostname; echo $HOME; pwd").text == "0\nsandbox\n/root\n/root\n"
    mapped = sandbox.run("cat /proc/self/uid_map").text.split()
    owner = subprocess.run(
        ["ps", "-o", "uid=", "-p", str(sandbox._process.pid)], capture_output=True, check=True
    )
    assert mapped[0] == "0"
    assert int(owner.stdout) == (SETTINGS.user_id if AS_ROOT else os.geteuid())


def test_find_does_not_complain(kind: str) -> None:
    with Sandbox(SETTINGS.model_copy(update={"silent_seconds": 30, "command_seconds": 30})) as box:
        assert (
            box.run(
                "find / -xdev 2>&1 >/dev/null; find /proc -maxdepth 3 2>&1 >/dev/null "
                "| grep -v 'No such'"
            ).text
            == ""
        )


# Limits.


def test_a_fork_bomb_ends_with_its_sandbox_and_spares_the_others(kind: str) -> None:
    with Sandbox(SETTINGS) as bombed, Sandbox(SETTINGS) as other:
        bombed.run(":(){ :|:& };:")
        begin = time.monotonic()
        assert other.run("(echo fine)").text == "fine\n"
        bombed.run("echo still here")
        bombed.stop_agent()
        assert bombed.run_script("(echo check)", []).text == "check\n"
        assert time.monotonic() - begin < 15


def test_number_of_processes(run: Run) -> None:
    many = "(for i in $(seq 200); do sleep 30 & done) 2>/dev/null &"
    count = int(run(f"{many} sleep 0.5; set -- /proc/[0-9]*; echo $#").split()[-1])
    # Some above is process 1 and what counts before the limit is set.
    assert SETTINGS.processes // 2 < count <= SETTINGS.processes + 2


def test_memory_of_a_process(sandbox: Sandbox) -> None:
    assert sandbox.run("x=$(head -c 700000000 /dev/zero | tr '\\0' a); echo ${#x}").exit_code != 0


def test_size_of_a_file_and_of_the_file_system(run: Run) -> None:
    assert int(run("head -c 20M /dev/zero > /big; stat -c %s /big").split()[-1]) == 8 * MIB
    run("head -c 8M /dev/zero > /two; head -c 8M /dev/zero > /three")
    assert int(run("cat /big /two /three | wc -c")) <= 16 * MIB
    for folder in ("/dev", "/dev/shm"):
        size = int(
            run(
                f"for i in 1 2 3; do head -c 8M /dev/zero > {folder}/$i; done 2>/dev/null; "
                f"cat {folder}/[123] 2>/dev/null | wc -c"
            )
        )
        assert size <= 16 * MIB


def test_captured_output(sandbox: Sandbox) -> None:
    before = time.monotonic()
    output = sandbox.run("yes")
    assert output.timed_out
    assert output.text.startswith("y\ny\n")
    assert len(output.text) <= SETTINGS.output_bytes
    assert time.monotonic() - before < SETTINGS.command_seconds + 3
    assert len(sandbox.run("head -c 300M /dev/zero | tr '\\0' a").text) == SETTINGS.output_bytes
    assert len(sandbox.run_script("yes | head -c 5M", []).text) == SETTINGS.output_bytes


def test_time_of_an_episode(kind: str) -> None:
    with Sandbox(SETTINGS.model_copy(update={"episode_seconds": 1})) as box:
        time.sleep(1.1)
        with pytest.raises(SandboxError, match="out of time"):
            box.run("true")


def test_time_of_a_script(kind: str) -> None:
    with Sandbox(SETTINGS.model_copy(update={"script_seconds": 1})) as box:
        assert box.run_script("echo begun; sleep 60", []) == Output("begun\n", None, True)
        assert box.run_script("echo next", []).text == "next\n"
