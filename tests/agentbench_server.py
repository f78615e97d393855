"""A server on the loopback that answers as an AgentBench controller was seen or told to answer."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gcd.core.task_settings import ServerSettings


@dataclass(frozen=True)
class Exchange:
    """A request that is expected, and its answer, sent after `delay` seconds."""

    path: str
    request: Any
    status: int
    response: Any
    delay: float = 0.0


@dataclass
class Replay:
    """Answers each request with the first exchange left for it; notes all requests."""

    exchanges: list[Exchange]
    address: str = ""
    received: list[tuple[str, Any]] = field(default_factory=list)

    def answer(self, path: str, request: Any) -> Exchange:
        self.received.append((path, request))
        for exchange in self.exchanges:
            if (exchange.path, exchange.request) == (path, request):
                self.exchanges.remove(exchange)
                return exchange
        return Exchange(path, request, 500, {"detail": "not in the script"})


@contextmanager
def replaying(*exchanges: Exchange) -> Iterator[Replay]:
    """A running server; `response` of text is sent as it is."""
    replay = Replay(list(exchanges))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond(None)

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def respond(self, request: Any) -> None:
            exchange = replay.answer(self.path, request)
            time.sleep(exchange.delay)
            text = exchange.response
            body = (text if isinstance(text, str) else json.dumps(text)).encode()
            try:
                self.send_response(exchange.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client did not wait

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    replay.address = f"http://127.0.0.1:{server.server_port}/api"
    try:
        yield replay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def settings(address: str, **changes: Any) -> ServerSettings:
    """Settings that wait hardly at all."""
    values: dict[str, Any] = {
        "address": address,
        "task": "os-std",
        "prompt_messages": 2,
        "retry_seconds": 0.01,
        "retries": 3,
        "turn_seconds": 5.0,
    }
    return ServerSettings.model_validate(values | changes)


# What a server says of one sample, whose prompt is PROMPT.

PROMPT = [("user", "Rules."), ("agent", "Ok.")]


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def output(status: str, *pairs: tuple[str, str], result: Any = None, session: int = 7) -> Any:
    history = turns(*PROMPT, *pairs)
    return {"session_id": session, "output": {"index": None, "status": status, "result": result,
                                              "history": history}}  # fmt: skip


def starting(status: int = 200, response: Any = None, key: Any = "a-1", **more: Any) -> Exchange:
    response = output("running", ("user", "Count.")) if response is None else response
    return Exchange("/api/start_sample", {"name": "os-std", "index": key}, status, response, **more)


def replying(content: str, status: int, response: Any, **more: Any) -> Exchange:
    body = {"session_id": 7, "agent_response": {"status": "normal", "content": content}}
    return Exchange("/api/interact", body, status, response, **more)


CANCEL = Exchange("/api/cancel", {"session_id": 7}, 200, {"session_id": 7})
BUSY = starting(406, {"detail": "Error: No workers available"})
