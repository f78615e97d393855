"""Ways out of the sandbox, and into the judging: each one tried."""

import ctypes
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcd.tasks.os_interaction.sandbox import Sandbox
from tests.sandboxes import KINDS, SETTINGS, Run, use


@pytest.fixture(params=KINDS)
def sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    use(request.param, monkeypatch)
    with Sandbox(SETTINGS) as running:
        yield running


@pytest.fixture
def run(sandbox: Sandbox) -> Run:
    return lambda command: sandbox.run(command).text


def python(code: str) -> str:
    """A command that runs Python code; the system's Python is inside."""
    return f"python3 -c '{code}'"


# The network, and sockets of the host.


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Services of the host: a port on the loopback, a socket in a file, an abstract one."""
    abstract = f"gcd-{os.getpid()}"
    port = socket.create_server(("127.0.0.1", 0))
    sockets = [port]
    for address in (str(tmp_path / "socket"), f"\0{abstract}"):
        one = socket.socket(socket.AF_UNIX)
        one.bind(address)
        one.listen()
        sockets.append(one)
    yield {
        "AF_INET": f'("127.0.0.1", {port.getsockname()[1]})',
        "AF_UNIX": f'"{tmp_path / "socket"}"',
        "AF_UNIX, abstract": f'"\\0{abstract}"',
    }
    for one in sockets:
        one.close()


def test_no_service_of_the_host_answers(run: Run, listeners: dict[str, str]) -> None:
    for family, address in listeners.items():
        connect = (
            f"import socket; s = socket.socket(socket.{family.split(',')[0]}); "
            f"print(s.connect_ex({address}))"
        )
        # The same code gets through outside.
        outside = ["/usr/bin/python3", "-c", connect]
        assert subprocess.run(outside, capture_output=True, check=True).stdout == b"0\n"
        assert int(run(python(connect))) != 0, family


def test_no_names_are_looked_up(run: Run) -> None:
    assert run("getent hosts example.com; echo $?") == "2\n"
    assert "unreachable" in run("echo x > /dev/udp/8.8.8.8/53")
    assert run("cat /proc/net/route | tail -n +2; cat /proc/net/unix | tail -n +2") == ""


# Other processes.


def test_processes_of_the_host_are_out_of_reach(run: Run) -> None:
    child = subprocess.Popen(["/bin/sleep", "60"])
    try:
        assert "No such process" in run(f"kill -9 {child.pid + 100000}; kill -0 {child.pid}")
        assert run("ls -d /proc/[0-9]* | wc -l") in ("6\n", "7\n", "8\n")
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


ATTACH = 16
TRACE = (
    "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    f"print(c.ptrace({ATTACH}, 1, 0, 0), ctypes.get_errno())"
)
WRITE = (
    "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    "b = ctypes.create_string_buffer(8); v = (ctypes.c_void_p * 2)(ctypes.addressof(b), 8); "
    "print(c.process_vm_writev(1, v, 1, v, 1, 0), ctypes.get_errno())"
)


@pytest.mark.parametrize("code", [TRACE, WRITE])
def test_the_supervisor_cannot_be_traced_or_written_to(run: Run, code: str) -> None:
    assert run(python(code)) == "-1 1\n"  # EPERM


def test_the_supervisors_pipes_and_environment_are_hidden(run: Run) -> None:
    assert run("ls -A /proc/1 | wc -l; cat /proc/1/environ 2>&1 | grep -c 'No such'") == "0\n1\n"
    run("kill -STOP 1; kill -SEGV 1")
    assert run("echo alive") == "alive\n"


@pytest.mark.parametrize(
    "command",
    [
        "unshare --user --map-root-user true",
        "unshare --mount true",
        "unshare --pid --fork true",
        "chroot / true",
        "mount --bind /tmp /mnt",
        "mount -t proc proc /tmp",
        "umount /proc/1",
        "umount -l /usr/bin",
        "mount -o remount,rw /usr/bin",
        "mknod /tmp/disk b 8 0",
        "nsenter --target 1 --mount true",
        "nice -n -5 true 2>&1 | grep -q cannot && false",
        "sysctl -w kernel.core_pattern=x 2>&1; echo x > /proc/sys/kernel/core_pattern",
        "echo x > /proc/sys/vm/overcommit_memory",
        "echo b > /proc/sysrq-trigger",
        "echo 9 > /proc/sys/user/max_user_namespaces",
        "echo -1000 > /proc/self/oom_score_adj",
        "date -s 2000-01-01",
        "hostname other",
        "ip link set lo up",
        "dmesg --clear",
        "cat /proc/kcore",
        "cat /dev/mem /dev/kmsg /dev/sda /dev/vda /dev/kvm /dev/fuse",
        "ls /sys/kernel",
        "ls /run/docker.sock /var/run/docker.sock /run/dbus /run/user",
    ],
)
def test_what_only_the_hosts_root_may(run: Run, command: str) -> None:
    code = run(f"({command}) >/dev/null 2>&1; echo $?").strip()
    assert code != "0"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls of x86_64")
def test_filtered_calls_fail_and_others_work(sandbox: Sandbox) -> None:
    if sandbox.kind == "unshare":
        pytest.skip("only bubblewrap installs a filter")
    for number in (248, 249, 250, 298, 321, 323, 425, 0x40000000 + 39):
        call = (
            "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
            f"print(c.syscall({number}, 0, 0, 0, 0, 0), ctypes.get_errno())"
        )
        assert sandbox.run(python(call)).text == "-1 1\n", number  # EPERM
    assert sandbox.run("sort /etc/passwd | head -n 1 | wc -l; sleep 0.01").text == "1\n"


def test_only_harmless_devices(run: Run) -> None:
    found = set(run("find /dev -type b -o -type c").split())
    names = ("console", "full", "null", "ptmx", "pts/ptmx", "random", "tty", "urandom", "zero")
    assert found <= {f"/dev/{name}" for name in names}


ADD_KEY, KEYCTL = 248, 250


@pytest.fixture
def sandbox_with_key(sandbox: Sandbox, keyring: int) -> Iterator[tuple[Sandbox, int]]:
    """A sandbox and a key of ours in a keyring that was there before it."""
    system = ctypes.CDLL(None, use_errno=True)
    key = system.syscall(ADD_KEY, b"user", b"gcd-test", b"secret", 6, keyring)
    if key < 0:
        pytest.skip("the kernel keeps no keys here")
    yield sandbox, key
    system.syscall(KEYCTL, 9, key, keyring)  # unlink


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls of x86_64")
@pytest.mark.parametrize("keyring", [-3, -4, -5])  # of the session, the user, the user's session
def test_keys_of_the_host_are_not_read(sandbox_with_key: tuple[Sandbox, int], keyring: int) -> None:
    sandbox, key = sandbox_with_key
    if sandbox.kind == "unshare" and keyring == -3:
        pytest.xfail("without bubblewrap there is no filter of system calls")
    read = (
        "import ctypes; c = ctypes.CDLL(None); b = ctypes.create_string_buffer(9); "
        f"print(c.syscall({KEYCTL}, 11, {key}, b, 9))"
    )
    assert sandbox.run(python(read)).text == "-1\n"


# Limits that other files do not try.


def test_open_files(run: Run) -> None:
    opened = run(
        "(for i in $(seq 300); do exec {fd}< /dev/null || break; echo $fd; done) 2>/dev/null "
        "| tail -n 1"
    )
    assert int(opened) < SETTINGS.open_files


def test_a_full_disk_is_the_agents_own_problem(sandbox: Sandbox) -> None:
    sandbox.run("for i in 1 2 3; do head -c 8M /dev/zero > /full$i; done 2>/dev/null")
    assert "No space left" in sandbox.run("echo more > /more").text
    sandbox.stop_agent()
    assert sandbox.run_script("echo out; [ -s /more ]", []).exit_code == 1
    with Sandbox(SETTINGS) as other:
        assert other.run("echo x > /x; cat /x").text == "x\n"


def test_many_files_are_bounded_too(sandbox: Sandbox) -> None:
    sandbox.run("mkdir /many; cd /many; (seq 1000000 | xargs touch) 2>/dev/null")
    assert sandbox.run("echo alive").text == "alive\n"


# Judging: what the agent leaves behind for the check scripts.

PASS = "#!/bin/bash\nexit 0\n"
TRICKS = {
    "a preloaded library": "echo /tmp/evil.so > /etc/ld.so.preload",
    "its own loader": "rm /lib64; mkdir /lib64; cp /bin/true /lib64/ld-linux-x86-64.so.2",
    "its own programs": "rm /bin; mkdir /bin; cp /usr/bin/true /bin/bash",
    "its own library folder": "rm /lib; mkdir -p /lib; cp -r /usr/lib/os-release /lib",
    "another /usr": "mv /usr /old; mkdir -p /usr/bin; cp /old/bin/true /usr/bin/timeout",
    "another /usr/bin": "mv /usr/bin /usr/old; mkdir /usr/bin",
    "another /etc": "mv /etc /old; mkdir /etc; echo /tmp > /etc/ld.so.conf",
    "another cache of libraries": "rm -f /etc/ld.so.cache; echo x > /etc/ld.so.cache",
    "links in /run": "rm -rf /run; ln -s /dev/null /run",
    "its own /proc": "mv /proc /old; mkdir /proc",
    "Python's start files": "mkdir -p /root/.local/lib/python3.11/site-packages; "
    "echo 'raise SystemExit(0)' > /root/.local/lib/python3.11/site-packages/usercustomize.py",
    "shell start files": "for f in .bashrc .bash_profile .profile .bash_login; do "
    "echo 'exit 0' > /root/$f; done; echo 'exit 0' > /etc/profile",
    "a survivor": "(trap '' TERM HUP INT; setsid bash -c 'while :; do touch /flag; rm -f /flag; "
    "echo 0 > /run/x; done' >/dev/null 2>&1 &)",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_makes_a_failing_check_pass(sandbox: Sandbox, trick: str) -> None:
    sandbox.run(TRICKS[trick])
    sandbox.stop_agent()
    assert sandbox.run_script("stat /nowhere", []).exit_code != 0
    assert sandbox.run_script("import os; os.stat('/nowhere')", [], "python").exit_code != 0


def test_what_a_check_starts_cannot_change_its_end(sandbox: Sandbox) -> None:
    """The agent's own program, which a check calls, replaces the loader meanwhile."""
    sandbox.run(
        "printf '#!/bin/bash\\nrm /lib64; mkdir /lib64\\n' > /usr/local/bin/calc; "
        "chmod 755 /usr/local/bin/calc"
    )
    sandbox.stop_agent()
    assert sandbox.run_script("calc; exit 0", []).exit_code == 1
    assert sandbox.run_script("exit 0", []).exit_code == 1


def test_stopped_processes_are_still_counted(sandbox: Sandbox) -> None:
    """A question about processes has the same answer in the agent's shell and in the check."""
    sandbox.run_script("for i in 1 2 3; do (sleep 60) & done", [])
    count = "set -- /proc/[0-9]*; echo $#"
    seen = sandbox.run(count).text
    sandbox.stop_agent()
    assert sandbox.run_script(count, []).text == seen


def test_nothing_of_the_agent_runs_on_during_the_check(sandbox: Sandbox) -> None:
    sandbox.run("(setsid bash -c 'while :; do date +%N > /tmp/clock; done' >/dev/null 2>&1 &)")
    sandbox.stop_agent()
    unchanged = 'a=$(cat /tmp/clock); sleep 0.3; [ "$a" = "$(cat /tmp/clock)" ]'
    assert sandbox.run_script(unchanged, []).exit_code == 0


def test_open_files_of_the_caller_are_not_inherited() -> None:
    with Sandbox(SETTINGS), Sandbox(SETTINGS) as box:
        assert set(box.run("ls /proc/self/fd").text.split()) <= {"0", "1", "2", "3", "9"}
