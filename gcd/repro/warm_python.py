"""One process that has imported torch and the like once, and forks for every stage.

`gcd.repro` starts it (`warm_python`) and puts the client's command into STAGE_PYTHON, which the
stages' commands in dvc.yaml begin with. It holds third-party modules only: the repository's own
code is read from disk by each stage. It starts no thread and touches no GPU before it forks.

Its standard input is its lifeline. Once the other end is closed, by `kill -9` too, it kills
everything that it runs, and ends.
"""

import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

SOCKET = Path(".work/warm_python.socket")
CLIENT = Path("gcd/repro/client.py")
LOG = Path("logs/warm_python.log")
TIMINGS = Path("logs/timings.jsonl")

# glibc gives memory back to the system and asks for it again, page by page: every training step
# faults 34,000 times, so 5,000 times. That is 1.5 % of its time.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(2**28),
}

# What the stages import, and DVC when it runs one. Transformers and pydantic import their parts
# when they are first used, so those are named.
MODULES = [
    "torch",
    "accelerate",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "gguf",
    "pydantic.main",
    "pydantic.type_adapter",
    "psutil",
    "regex",
    "lxml.html",
    "httpx",
    "pandas",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.repo.reproduce",
    "dvc.repo.index",
    "dvc.stage.cache",
]
# Imports bitsandbytes, which would initialise CUDA, and a fork could not use that.
WITHOUT_GPU = ["peft"]
NVIDIA = Path("/proc/driver/nvidia")  # there with the driver of an NVIDIA GPU


def gpu_is_there() -> bool:
    """Whether stages find an NVIDIA GPU, told without torch and without touching it."""
    return NVIDIA.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in {"", "-1"}


# --- The driver's side ----------------------------------------------------------------------------


@contextmanager
def warm_python() -> Iterator[str]:
    """Start the helper; yields what STAGE_PYTHON should be. At the end all that it runs is killed.

    Returns at once: what comes before the helper is ready waits for it.
    """
    for folder in (SOCKET.parent, LOG.parent):
        folder.mkdir(exist_ok=True)
    SOCKET.unlink(missing_ok=True)
    # One thread: others would not survive a fork. Each stage sets its own number. The second
    # variable lets torch look for GPUs without initialising CUDA.
    variables = {**MALLOC, "OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    environment = {**os.environ, **variables}
    with socket.socket(socket.AF_UNIX) as listener, LOG.open("wb") as log:
        mask = os.umask(0o077)  # who connects runs code as this user
        listener.bind(str(SOCKET))
        os.umask(mask)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "gcd.repro.warm_python", str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the driver, which tells the stages
        )
    try:
        # Relative paths: the shell splits the variable at spaces.
        yield f"python -I -S {CLIENT} {SOCKET}"
    finally:
        process.terminate()  # for the time of its imports; later it ignores this
        process.communicate()  # closes the lifeline
        SOCKET.unlink(missing_ok=True)


# --- The helper's side ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a client asks for, and its standard streams."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


@dataclass(frozen=True)
class Child:
    """The process that runs for a client, and leads a process group of its own."""

    pid: int
    ended: int  # a pidfd: readable once the process has ended
    client: socket.socket

    def close(self) -> None:
        self.client.close()
        os.close(self.ended)


def import_modules() -> None:
    """Import, and write down the seconds beside those of the stages that they save.

    Not by gcd.core.timings: every stage would get that module as it was when the helper began.
    """
    for name in MODULES if gpu_is_there() else MODULES + WITHOUT_GPU:
        import_module(name)
    import psutil

    seconds = round(time.time() - psutil.Process().create_time(), 2)
    line = {
        "stage": "warm_python",
        "arguments": [],
        "seconds": seconds,
        "start_up_seconds": seconds,
        "loading_seconds": 0.0,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    with TIMINGS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def receive(client: socket.socket) -> Request | None:
    """The client's request; None if it was killed before it had sent all of it."""
    try:
        head, streams, _, _ = socket.recv_fds(client, 8, 3)
        content = client.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        return Request(**json.loads(content), streams=streams)
    except (OSError, ValueError):
        return None


def become(request: Request) -> list[str]:
    """Turn this fork into what the client asked for; returns the arguments after `python -m`."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # torch read the variable when it was imported.
    import_module("torch").set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return request.arguments[1:]


def tell_and_close(child: Child) -> None:
    """Tell the client how its process ended. If it has not ended, the client is gone: kill it."""
    os.killpg(child.pid, signal.SIGKILL)  # with what a process that has ended left behind
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    with suppress(OSError):
        child.client.sendall(status.to_bytes(8, "big", signed=True))
    child.close()


def start(client: socket.socket, request: Request) -> Child | None:
    """Fork; None in the child. The client hears the number of the child's process group."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        client.close()
        return None
    os.setpgid(pid, pid)  # here too: the client may send a signal before the child comes so far
    for stream in request.streams:
        os.close(stream)
    with suppress(OSError):  # the client is gone: its connection says so next
        client.sendall(pid.to_bytes(8, "big"))
    return Child(pid, os.pidfd_open(pid), client)


def serve(listener: socket.socket) -> list[str]:
    """Fork for every request. Returns in the child, with its arguments; the helper exits here."""
    children: list[Child] = []
    while True:
        watched = [listener, sys.stdin, *(end for c in children for end in (c.client, c.ended))]
        ready = select.select(watched, [], [])[0]
        if sys.stdin in ready:
            for child in children:
                tell_and_close(child)
            sys.exit()
        for child in [child for child in children if {child.client, child.ended} & {*ready}]:
            tell_and_close(child)
            children.remove(child)
        if listener in ready:
            client = listener.accept()[0]
            request = receive(client)
            if request is None:
                client.close()
                continue
            started = start(client, request)
            if started is None:
                listener.close()
                for child in children:
                    child.close()
                return become(request)
            children.append(started)


def main() -> None:
    """The helper: `python -m gcd.repro.warm_python <number of the listening socket>`."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    import_modules()
    gc.freeze()  # the stages' collections need not walk through what is imported here
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on its lifeline ends it
    arguments = serve(listener)
    sys.argv[:] = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
