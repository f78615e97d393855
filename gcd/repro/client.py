"""Stands for `python` in a stage's command while `gcd.repro` runs: asks the warm Python to run it.

python -I -S gcd/repro/client.py <socket> -m stages.score

Standard library only, and started without site-packages: 30 ms where a Python with torch takes 7 s.
What it asks for runs with this process's arguments, working directory, environment and standard
streams; signals are passed on to it, and this process ends as it ended. Once this process is gone,
the warm Python kills it.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

GONE = "The warm Python has ended; its output is in logs/warm_python.log. Run it again."


def ask(connection: socket.socket, arguments: list[str]) -> int:
    """Send the request; returns the process group that runs it, 0 if the helper is gone."""
    request = {
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 (pathlib takes longer to import than this program)
        "environment": dict(os.environ),
    }
    content = json.dumps(request).encode()
    socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(content)
    return int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big")


def wait(connection: socket.socket, group: int) -> int | None:
    """Pass signals on until the work ends: its exit status, minus a signal's number, or None."""

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    answer = connection.recv(8, socket.MSG_WAITALL)
    return int.from_bytes(answer, "big", signed=True) if answer else None


def main() -> None:
    """Ask, wait, and end as the work ended."""
    path, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            group = ask(connection, arguments)
            status = wait(connection, group) if group else None
        except OSError:
            status = None
    if status is None:
        sys.exit(GONE)
    if status < 0:
        with suppress(OSError):  # SIGKILL needs no reset, and allows none
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
