"""A throw-away Linux in which an agent's commands run, with one persistent bash.

Inside there is a fresh file system in memory with the host's /usr read-only, no network, none of
the host's processes, files or environment, a user that looks like root and is an unprivileged one
of the host's, and limits on processes, memory, files, output and time. Everything in it ends with
the block, and with the program that opened it, however that dies.

It keeps a clumsy or curious model from doing harm. It is no security boundary against a determined
attacker with a kernel exploit: run untrusted models in Docker or a virtual machine. Memory is
limited for each process, not for all together, and each of the file systems in memory (/, /usr,
/etc, /dev/shm) by itself. Without bubblewrap, `unshare` leaves the caller's session keyring to be
read. What a check script itself starts or reads may be the agent's, as in AgentBench.

Which program makes it, and why: `python -m gcd.tasks.os_interaction`.

Three programs run inside. A supervisor, which only we talk to, starts init and check scripts in
fresh processes that the agent's shell cannot influence; it is process 1, which nothing inside can
kill, and its folder in /proc is hidden. A keeper starts the agent's bash, and a new one whenever
it ends. The agent's bash reads one framed command at a time; that a command has ended is told on a
pipe of its own, so nothing it prints can be mistaken for that.
"""

import base64
import os
import secrets
import select
import subprocess
import time
from dataclasses import dataclass
from typing import BinaryIO, Self

from gcd.core.errors import UserError
from gcd.core.settings import Count, Section
from gcd.tasks.os_interaction.sandbox_command import ENVIRONMENT, announce, sandbox_command
from gcd.tasks.os_interaction.sandbox_filter import opened_filter
from gcd.tasks.os_interaction.sandbox_supervisor import (
    GONE,
    GROUPS,
    KILL_SHELL,
    KILL_YOUNGER,
    READ_SUPERVISOR,
    REPLACED,
    STOP_AGENT,
    SUPERVISOR,
    UNTOUCHED,
    USERS,
)
from gcd.tasks.os_interaction.sandbox_text import clean, quote


class SandboxSettings(Section):
    """Limits. Bytes and seconds as named; `user_id` is the host's user where we start as root."""

    user_id: Count
    processes: Count
    memory_bytes: Count
    disk_bytes: Count
    file_bytes: Count
    open_files: Count
    cpu_seconds: Count
    command_seconds: Count
    silent_seconds: Count
    script_seconds: Count
    episode_seconds: Count
    output_bytes: Count


@dataclass(frozen=True)
class Output:
    """What a command printed (stdout and stderr merged, escape sequences removed), and its end.

    `exit_code` is None where it did not end by itself: `timed_out`, or its shell has gone.
    """

    text: str
    exit_code: int | None
    timed_out: bool


class SandboxError(Exception):
    """All processes of the sandbox are gone: killed from inside, or out of time."""


def _ticks() -> int:
    """Clock ticks since boot, the unit of a process's start time in /proc."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


class Sandbox:
    """A running sandbox; use it as a context manager. Not for use by several threads at once.

    It ends with the thread that opened it, which is how it ends with the program: open it in one
    that lives as long.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        announce(settings.disk_bytes, settings.user_id)
        self.kind, self._command = sandbox_command(settings.disk_bytes, settings.user_id)

    def __enter__(self) -> Self:
        """Start it. Raises UserError if it does not come up."""
        inner, ours = self._pipes()
        shell, output, ended = inner
        limits = self.settings
        supervisor = SUPERVISOR.format(
            users=USERS,
            groups=GROUPS,
            home=ENVIRONMENT["HOME"],
            untouched=UNTOUCHED,
            replaced=base64.b64encode(REPLACED.encode()).decode(),
            output_bytes=limits.output_bytes,
            processes=limits.processes,
            memory_kib=limits.memory_bytes // 1024,
            file_blocks=limits.file_bytes // 1024,
            open_files=limits.open_files,
            cpu_seconds=limits.cpu_seconds,
            shell=shell,
            output=output,
            ended=ended,
        )
        program = ["/bin/bash", "--noprofile", "--norc", "-c", READ_SUPERVISOR]
        with opened_filter([*self._command, *program]) as (command, inherited):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[*inner, *inherited],
                env={},
                start_new_session=True,
                bufsize=0,
            )
        for descriptor in inner:
            os.close(descriptor)
        self._shell, self._output, self._ended = ours
        os.set_blocking(self._output, False)
        self._deadline = time.monotonic() + limits.episode_seconds
        self._last_code = 0
        self._last_ticks = 0
        try:
            self._ask(f"{supervisor}\0", limits.script_seconds)
        except SandboxError as error:
            self.__exit__()
            raise UserError(
                f"The {self.kind} sandbox did not start; see `dmesg` or try again."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything inside."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        for descriptor in (self._shell, self._output, self._ended):
            os.close(descriptor)

    @staticmethod
    def _pipes() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Pipes for the shell's input, its output, and ends of commands: theirs, and ours."""
        shell, feed = os.pipe()
        read, output = os.pipe()
        told, ended = os.pipe()
        return (shell, output, ended), (feed, read, told)

    def _seconds(self, wanted: float) -> float:
        """Seconds that a step may take; raises SandboxError if the episode's time is up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._process.kill()
            raise SandboxError(f"out of time after {self.settings.episode_seconds} s")
        return min(wanted, left)

    def _read_line(self, seconds: float) -> str:
        """A line from the supervisor; raises SandboxError if none comes."""
        stream: BinaryIO = self._process.stdout  # type: ignore[assignment]
        end = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(stream.fileno(), 1 << 16) if ready else b""
            if not piece:
                self._process.kill()
                raise SandboxError("the machine does not answer: its processes were killed")
            line += piece
        return line.decode().strip()

    def _ask(self, request: str, seconds: float) -> str:
        """Let the supervisor run one line; returns the one it prints."""
        try:
            data = request.encode(errors="replace") + b"\n"
            self._process.stdin.write(data)  # type: ignore[union-attr]
        except OSError as error:
            raise SandboxError("the machine is gone: its processes were killed") from error
        return self._read_line(seconds)

    def run_script(self, code: str, arguments: list[str], language: str = "bash") -> Output:
        """Run a script in a fresh process that shares nothing with the agent's shell but files.

        Args:
            code: bash or Python source.
            arguments: $1, $2 … (sys.argv[1:]).
            language: "bash" or "python".

        Raises:
            SandboxError: the sandbox has ended.
        """
        seconds = self._seconds(self.settings.script_seconds)
        file = f"/run/{secrets.token_hex(8)}"
        # -I and -S: Python takes no module from a folder that the agent can write to.
        program = "/bin/bash --noprofile --norc" if language == "bash" else "/usr/bin/python3 -I -S"
        separator = "--" if language == "bash" else ""
        words = " ".join(map(quote, arguments))
        request = (
            f"script {file} -s KILL {seconds:.1f} {program} -c {quote(code)} {separator} {words}"
        )
        status, _, encoded = self._ask(request, seconds + 5).partition(" ")
        timed_out = status == "137"
        text = clean(base64.b64decode(encoded))
        return Output(text, None if timed_out else int(status), timed_out)

    def run(self, command: str) -> Output:
        """Run a command in the agent's persistent shell.

        It ends after `command_seconds`, or after `silent_seconds` without output: then what the
        command started is killed, the shell survives, and the text so far is returned. (AgentBench
        v0.2 stops reading after the same times, but leaves the command running.)

        Raises:
            SandboxError: the sandbox has ended.
        """
        mark = secrets.token_hex(16)
        while (start := _ticks()) == self._last_ticks:
            time.sleep(0.001)  # or what the command before left running would seem younger
        # The framing would set $?: give the command the exit code of the one before.
        before = f"(exit {self._last_code}); " if self._last_code else ""
        self._feed(
            f"{before}eval {quote(command)} </dev/null 9>&-; "
            # Quiet, or `set -x` would show the mark.
            f"{{ printf '%s %s\\n' {mark} $? >&9; }} 2>/dev/null\n"
        )
        printed, ending = self._collect(mark, self.settings.command_seconds)
        timed_out = ending is None
        for remedy in (KILL_YOUNGER.replace("START", str(start)), KILL_SHELL):
            if ending is None:
                self._ask(remedy, self._seconds(5.0))
                more, ending = self._collect(mark, 1.0)
                printed += more
        printed = printed[: self.settings.output_bytes]
        self._last_code = 0 if ending is None or ending == GONE else int(ending)
        self._last_ticks = _ticks()
        ended_itself = not timed_out and ending != GONE
        return Output(clean(printed), self._last_code if ended_itself else None, timed_out)

    def stop_agent(self) -> None:
        """Stop all processes of the agent, its shell too: only `run_script` works from here on.

        Raises:
            SandboxError: the sandbox has ended.
        """
        request = STOP_AGENT.replace("ROOM", str(self.settings.processes // 2))
        self._ask(request, self._seconds(self.settings.script_seconds))

    def _feed(self, line: str) -> None:
        """Write a line to the agent's shell, which may have stopped reading."""
        data = line.encode(errors="replace")
        end = time.monotonic() + self._seconds(self.settings.command_seconds)
        while data and time.monotonic() < end:
            if select.select([], [self._shell], [], 0.1)[1]:
                try:
                    data = data[os.write(self._shell, data[: select.PIPE_BUF]) :]
                except OSError as error:
                    raise SandboxError("the machine is gone: its processes were killed") from error

    def _collect(self, mark: str, seconds: float) -> tuple[bytes, str | None]:
        """Read what the shell prints until the command `mark` ends.

        Returns:
            The first `output_bytes` of it (the rest is read and dropped), and how it ended: the
            exit code, GONE if the shell ended, None if the time or the silence was too long.
        """
        printed = b""
        told = b""
        end = time.monotonic() + self._seconds(seconds)
        heard = time.monotonic()
        while True:
            wait = min(end, heard + self.settings.silent_seconds) - time.monotonic()
            ready, _, _ = select.select([self._output, self._ended], [], [], max(0.0, wait))
            if self._output in ready:
                heard = time.monotonic()
                printed = (printed + self._drain())[: self.settings.output_bytes]
            if self._ended in ready:
                piece = os.read(self._ended, 1 << 12)
                if not piece:
                    raise SandboxError("all processes of the machine were killed")
                told += piece
                for line in told.decode(errors="replace").split("\n")[:-1]:
                    if line == GONE or line.startswith(mark):
                        printed += self._drain()
                        return printed[: self.settings.output_bytes], line.removeprefix(
                            mark
                        ).strip()
            if wait <= 0:
                return printed, None

    def _drain(self) -> bytes:
        """What is there to read now, at most some of it."""
        try:
            return os.read(self._output, 1 << 20)
        except BlockingIOError:
            return b""
