"""AgentBench's own machine for OS interaction: a Docker container a sample, in its images.

The same methods as `sandbox.Sandbox`, by the `docker` command line. As AgentBench v0.2 does
(src/server/tasks/os_interaction/task.py, `Container`), init and check scripts run in processes of
their own, and the agent's commands in one persistent login shell. Where it differs: there is no
terminal, a command ends when it ends and not when its output falls silent, what runs too long is
killed, and the container has no network and limits.
"""

import logging
import os
import re
import secrets
import select
import shlex
import shutil
import subprocess
import time
from functools import cache
from typing import IO, Self

from gcd.core.errors import UserError
from gcd.core.settings import Count, Positive, Section
from gcd.tasks.os_interaction.sandbox import Output, SandboxError, SandboxSettings
from gcd.tasks.os_interaction.sandbox_text import clean

_log = logging.getLogger(__name__)
_TICKS = 100  # a second, in /proc/<pid>/stat, on every Linux
# Between two commands, so that what the first left running is surely older than the second: the
# clock counts in hundredths, and we read it a little late.
_PAUSE_SECONDS = 0.05
_ASK_SECONDS = 60.0  # for the daemon itself to start or remove a container
# What the running command has started: all that is younger than it, but its shell and this. Only
# bash's own means: an image may lack any program.
_KILL_YOUNGER = (
    "for folder in /proc/[0-9]*; do pid=${folder#/proc/}; "
    'if read -r line < "$folder/stat"; then set -- ${line##*) }; '
    '[ "${20}" -ge START -a $pid != SHELL -a $pid != $$ ] && kill -9 $pid; fi; done 2>/dev/null; :'
)


class DockerSettings(Section):
    """The container's image and limits. Samples may name another image; sizes are as in docker."""

    image: str
    memory: str
    cpus: Positive
    processes: Count


def _docker(*arguments: str) -> str:
    """What `docker` prints; raises UserError in one line if it fails."""
    if shutil.which("docker") is None:
        raise UserError("backend: docker needs the `docker` program; install Docker Engine.")
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"docker {arguments[0]}: no answer within {_ASK_SECONDS:g} s; is the daemon well?"
        ) from error
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise UserError(f"docker {arguments[0]} failed: {message[:300]}")
    return done.stdout.strip()


@cache
def require_image(image: str) -> None:
    """Raises UserError, with the remedy, if Docker does not run or does not have the image."""
    try:
        _docker("image", "inspect", "--format", "{{.Id}}", image)
    except UserError as error:
        if "no such image" not in str(error).lower():
            raise
        name = image.rpartition("/")[2]
        raise UserError(
            f"Docker has no image {image}. Build it in a checkout of AgentBench (branch v0.2): "
            f"docker build -t {image} -f data/os_interaction/res/dockerfiles/{name} "
            "data/os_interaction/res/dockerfiles"
        ) from error


class DockerMachine:
    """A running container; use it as a context manager. Not for use by several threads at once."""

    kind = "docker"

    def __init__(self, image: str, settings: DockerSettings, limits: SandboxSettings) -> None:
        """`limits` are those on time and output; those on the rest are `settings`."""
        require_image(image)
        self._image = image
        self._settings = settings
        self._limits = limits
        self._last_code = 0
        self._ended = 0.0  # when the last command did

    def __enter__(self) -> Self:
        """Start it. Raises UserError if it does not come up."""
        settings = self._settings
        seconds = self._limits.episode_seconds
        self._container = _docker(
            *("run", "-dt", "--rm", "--pull", "never", "--label", "created_by=gcd"),
            *("--network", "none", "--memory", settings.memory, "--memory-swap", settings.memory),
            *("--pids-limit", str(settings.processes), "--cpus", f"{settings.cpus:g}"),
            # It ends by itself, should this program be killed.
            *(self._image, "sleep", str(seconds)),
        )
        self._deadline = time.monotonic() + seconds
        try:
            self._open_shell()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the container, and with it everything inside."""
        self._remove()
        self._close_shell()

    def _remove(self) -> None:
        try:
            _docker("rm", "-f", self._container)
        except UserError as error:  # it may have ended by itself
            _log.warning("container %s: %s", self._container[:12], error)

    def run_script(self, code: str, arguments: list[str], language: str = "bash") -> Output:
        """Run a script in a fresh process: see `Sandbox.run_script`."""
        seconds = self._seconds(self._limits.script_seconds)
        bash, python = ["bash", "-c", code, "--"], ["python3", "-I", "-S", "-c", code]
        program = [*(bash if language == "bash" else python), *arguments]
        printed, status = self._execute(
            ["timeout", "-s", "KILL", f"{seconds:.1f}", *program], seconds + 5
        )
        timed_out = status in (None, 137)
        return Output(clean(printed), None if timed_out else status, timed_out)

    def run(self, command: str) -> Output:
        """Run a command in the agent's persistent shell: see `Sandbox.run`."""
        mark = secrets.token_hex(16)
        time.sleep(max(0.0, self._ended + _PAUSE_SECONDS - time.monotonic()))
        start = int((time.monotonic() + self._boot_offset) * _TICKS)
        before = f"(exit {self._last_code}); " if self._last_code else ""
        code = shlex.quote(command.replace("\0", ""))
        printed, ending = b"", "ended"
        if self._feed(
            f"{before}eval {code} </dev/null 9>&-; {{ printf '%s %s\\n' {mark} $? >&9; }} 2>&-\n"
        ):
            printed, ending = self._collect(mark, self._limits.command_seconds)
        timed_out = ending == ""
        younger = _KILL_YOUNGER.replace("START", str(start)).replace("SHELL", self._shell)
        for remedy in (younger, f"kill -9 {self._shell}"):
            if ending == "":
                self._execute(["bash", "-c", remedy], self._seconds(self._limits.script_seconds))
                more, ending = self._collect(mark, 1.0)
                printed += more
        if ending in ("", "ended"):
            self._close_shell()
            self._open_shell()
            ending = "ended"
        self._last_code = 0 if ending == "ended" else int(ending)
        self._ended = time.monotonic()
        exit_code = None if timed_out or ending == "ended" else self._last_code
        return Output(clean(printed[: self._limits.output_bytes]), exit_code, timed_out)

    def stop_agent(self) -> None:
        """Kill all processes, the agent's shell too: only `run_script` works from here on."""
        seconds = self._seconds(self._limits.script_seconds)
        self._execute(["bash", "-c", "kill -9 -1"], seconds)

    def _seconds(self, wanted: float) -> float:
        """Seconds that a step may take; raises SandboxError if the episode's time is up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise SandboxError(f"out of time after {self._limits.episode_seconds} s")
        return min(wanted, left)

    def _execute(self, command: list[str], seconds: float) -> tuple[bytes, int | None]:
        """Run a program in the container; what it prints, and its exit status, None if too late.

        Raises:
            SandboxError: the container is gone, or has no room for another process.
        """
        # Merged inside, so that what docker itself has to say stays apart.
        words = ["bash", "-c", 'exec "$@" 2>&1', "--", *command]
        process = subprocess.Popen(
            ["docker", "exec", self._container, *(word.replace("\0", "") for word in words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with process:
            stream: IO[bytes] = process.stdout  # type: ignore[assignment]
            printed = b""
            end = time.monotonic() + seconds
            while select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                piece = os.read(stream.fileno(), 1 << 16)
                if not piece:
                    complaint = process.communicate()[1].decode(errors="replace").strip()
                    if process.returncode and complaint:
                        raise SandboxError(" ".join(complaint.split())[:300])
                    return printed, process.returncode
                printed = (printed + piece)[: self._limits.output_bytes]
            process.kill()
        return printed, None

    def _open_shell(self) -> None:
        """Start the agent's shell; raises SandboxError if it does not answer."""
        self._process = subprocess.Popen(
            ["docker", "exec", "-i", self._container, "bash", "--login"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        mark = secrets.token_hex(16)
        # Ends of commands are told on 9, which is where output went first: in order with it.
        self._feed(
            f"exec 2>&1 9>&1; (read -r up _ </proc/uptime; printf '{mark} %s,%s\\n' $$ $up >&9)\n"
        )
        printed, told = self._collect(mark, self._seconds(self._limits.script_seconds))
        if told in ("", "ended"):
            self._close_shell()
            raise SandboxError(f"no shell in the container: {clean(printed)[:200]!r}")
        self._shell, _, uptime = told.partition(",")
        self._boot_offset = float(uptime) - time.monotonic()
        self._last_code = 0
        self._ended = time.monotonic()

    def _close_shell(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _feed(self, line: str) -> bool:
        """Write a line to the shell; whether it was there to read it."""
        stream: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        try:
            stream.write(line.encode(errors="replace"))
        except OSError:
            return False
        return True

    def _collect(self, mark: str, seconds: float) -> tuple[bytes, str]:
        """Read what the shell prints up to `mark`, which it writes with a word behind it.

        Returns:
            The first `output_bytes` of it, and that word; "ended" if the shell ended; nothing if
            the time or the silence was too long.
        """
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        limit = self._limits.output_bytes
        told = re.compile(rb"%s (\S+)\n" % mark.encode())
        printed = b""
        end = time.monotonic() + self._seconds(seconds)
        heard = time.monotonic()
        while True:
            wait = min(end, heard + self._limits.silent_seconds) - time.monotonic()
            if not select.select([stream], [], [], max(0.0, wait))[0]:
                return printed[:limit], ""
            heard = time.monotonic()
            piece = os.read(stream.fileno(), 1 << 16)
            printed += piece
            found = told.search(printed)
            if found:
                return printed[: found.start()][:limit], found[1].decode()
            if not piece:
                return printed[:limit], "ended"
            if len(printed) > limit + 64:  # the mark may lie across two pieces
                printed = printed[:limit] + printed[-64:]
            if wait <= 0:
                return printed[:limit], ""
