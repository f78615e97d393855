"""llama.cpp's own server, as a process on loopback, and a relay that watches what reaches it.

python -m tests.llama_server model.gguf [key [adapter.gguf]]
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

# Not out of tests.conftest: that imports torch, which the server's process does without.
ROOT = Path(__file__).resolve().parents[1]
SLOTS = 4
CONTEXT = 2048


def main(model: str, key: str = "", adapter: str = "") -> None:
    """Serve `model`, perhaps with a LoRA adapter, until a signal; print the address."""
    from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server

    params = CommonParams()
    params.model.path = model
    params.model_alias = {"smollm2"}
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    # One: beside other work, two threads that wait for each other take several times as long.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Nucleus sampling alone, as the transformers engine does it.
    params.sampling.top_k = 0
    params.sampling.min_p = 0.0
    params.api_keys = [key] if key else []
    if adapter:
        lora = CommonAdapterLoraInfo()
        lora.path, lora.scale = adapter, 1.0
        params.lora_adapters = [lora]
    server = Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


@contextmanager
def serving(model: Path, key: str = "", adapter: Path | None = None) -> Iterator[str]:
    """A server process; the address that `generation_server.address` wants."""
    command = [sys.executable, "-m", "tests.llama_server", str(model), key]
    command += [str(adapter)] if adapter else []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address
            yield f"{address}/v1"
        finally:
            process.kill()


class Relay(ThreadingHTTPServer):
    """Passes requests on to a server, remembers them, and stands in its way where it is told to.

    `change` rewrites a chat request on its way; `refuse` answers it instead of the server, with a
    status and headers (None: passes it on); `hold` keeps a reply back until it returns.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target.removesuffix("/v1")
        self.address = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []  # chat requests, as they came
        self.times: list[float] = []
        self.keys: list[str | None] = []  # of every call
        self.under_way = 0
        self.most_under_way = 0
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda request: request
        self.refuse: Callable[[int], tuple[int, dict[str, str]] | None] = lambda number: None
        self.hold: Callable[[int], None] = lambda number: None

    def begin(self, request: dict[str, Any]) -> int:
        with self.lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            return len(self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = self.server.begin(json.loads(body))
        try:
            refused = self.server.refuse(number)
            if refused:
                status, headers = refused
                self._answer(status, b'{"error": {"message": "not now"}}', headers)
            else:
                changed = self.server.change(json.loads(body))
                self._pass_on(json.dumps(changed).encode(), number)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def _pass_on(self, body: bytes, number: int = 0) -> None:
        self.server.keys.append(self.headers["Authorization"])
        headers = {"Authorization": self.headers["Authorization"]}
        done = httpx.request(
            self.command, self.server.target + self.path, content=body, headers=headers, timeout=600
        )
        self.server.hold(number)
        self._answer(done.status_code, done.content, {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def relaying(target: str) -> Iterator[Relay]:
    """A relay in front of the server at `target`."""
    with Relay(target) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        try:
            yield relay
        finally:
            relay.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
