"""The openai engine against llama.cpp's own server: a process on loopback with the pinned model.

Where something has to go wrong, a relay in front of that server makes it.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gcd.core.decoding import Sampling
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply
from gcd.core.journal import Journal
from gcd.core.settings import GenerationServerSettings
from gcd.synthesis.openai_engine import KEY, Pace, ServedModel, load_served_model
from tests.llama_server import CONTEXT, Relay, relaying, serving
from tests.tiny import system, user

pytest.importorskip("xllamacpp", reason="no wheel with llama.cpp's server for this system")

PROMPT = [system("You answer in a few words.")]
QUESTIONS = [[user("Count: " + "one " * number)] for number in range(1, 7)]
SAMPLING = Sampling(temperature=1.0, top_p=0.9, seed="0/test")


@pytest.fixture(scope="module")
def server(gguf: Path) -> Iterator[str]:
    with serving(gguf) as address:
        yield address


@pytest.fixture
def relay(server: str) -> Iterator[Relay]:
    with relaying(server) as relay:
        yield relay


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ServedModel]:
    """A model of the server at an address; the same work folder every time."""

    def load(
        address: str, openings: Any = "continue", model: str = "smollm2", **changes: Any
    ) -> ServedModel:
        settings = GenerationServerSettings(
            address=address,
            parallel_requests=3,
            requests_per_minute=None,
            retries=0,
            timeout_seconds=60.0,
        ).model_copy(update=changes)
        return load_served_model(settings, openings, model, tmp_path)

    return load


def ask(model: ServedModel, questions: Any = QUESTIONS, **options: Any) -> list[Reply | None]:
    options.setdefault("max_new_tokens", 8)
    return model.generate(PROMPT, questions, progress="test", **options)


def test_a_greedy_reply_is_what_the_server_says(server, load) -> None:
    messages = [{"role": "system", "content": PROMPT[0].content}]
    messages += [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": "smollm2", "messages": messages, "temperature": 0, "max_tokens": 30}
    said = httpx.post(f"{server}/chat/completions", json=body, timeout=60).json()
    expected = said["choices"][0]["message"]["content"]
    [reply] = ask(load(server), [[user("What is the capital of France?")]], max_new_tokens=30)
    assert reply is not None
    assert "Paris" in expected
    assert (reply.text, reply.complete) == (expected.strip(), True)
    assert reply.context_tokens == said["usage"]["prompt_tokens"]
    assert reply.reply_tokens == said["usage"]["completion_tokens"]


def test_a_reply_at_its_limit_is_not_complete(server, load) -> None:
    [reply] = ask(load(server), [[user("Write a long story.")]], max_new_tokens=5)
    assert reply is not None
    assert (reply.reply_tokens, reply.complete) == (5, False)


def test_replies_come_in_the_order_of_the_conversations(relay, load) -> None:
    """The first requests are answered last; every question is longer than the one before."""
    relay.hold = lambda number: time.sleep(0.4 if number == 1 else 0)
    replies = ask(load(relay.address))
    read = [reply.context_tokens for reply in replies if reply]
    assert len(read) == len(QUESTIONS)
    assert read == sorted(set(read))


def test_requests_run_side_by_side_and_no_more_than_allowed(relay, load) -> None:
    relay.hold = lambda number: time.sleep(0.1)
    ask(load(relay.address, parallel_requests=3))
    assert relay.most_under_way == 3
    assert len(relay.requests) == len(QUESTIONS)


def test_every_conversation_has_its_own_seed(relay, load) -> None:
    same = [[user("Say a word.")]] * 3
    ask(load(relay.address, parallel_requests=1), same, sampling=SAMPLING)
    sent = [(request["temperature"], request["top_p"]) for request in relay.requests]
    assert sent == [(1.0, 0.9)] * 3
    seeds = [request["seed"] for request in relay.requests]
    assert len(set(seeds)) == 3
    other = Sampling(temperature=1.0, top_p=0.9, seed="1/test")
    ask(load(relay.address, parallel_requests=1), same[:1], sampling=other)
    assert relay.requests[-1]["seed"] not in seeds


OPENING = "1. Apples\n2. Pears\n"


@pytest.mark.parametrize("openings", ["continue", "ask"])
def test_a_reply_begins_with_its_opening_once(relay, load, openings: str) -> None:
    model = load(relay.address, openings)
    question = [[user("Write a numbered list of 4 fruits, one a line.")]]
    [reply] = ask(model, question, max_new_tokens=30, openings=[OPENING])
    assert reply is not None
    assert reply.text.startswith(OPENING.strip())
    assert reply.text.count("2. Pears") == 1
    [request] = relay.requests
    roles = [message["role"] for message in request["messages"]]
    if openings == "continue":
        assert roles == ["system", "user", "assistant"]
        # The server went on with the list, where a new turn would begin at 1.
        assert reply.text.removeprefix(OPENING).startswith("3.")
    else:
        assert roles == ["system", "user"]
        assert OPENING in request["messages"][-1]["content"]


def test_a_server_that_does_not_continue_is_noticed(relay, load) -> None:
    """Such as a hosted model, to which the assistant's message is one more turn."""

    def drop(request: dict[str, Any]) -> dict[str, Any]:
        ours = ("continue_final_message", "add_generation_prompt", "echo")
        rest = {key: value for key, value in request.items() if key not in ours}
        return rest | {"messages": request["messages"][:-1]}

    relay.change = drop
    with pytest.raises(UserError, match=r"Set generation\.openings to ask"):
        ask(load(relay.address), QUESTIONS[:1], openings=["Zebras are "])


def test_a_conversation_that_does_not_fit_has_no_reply_and_is_not_asked_again(relay, load) -> None:
    long = [[user("apple " * (CONTEXT + 1))], QUESTIONS[0]]
    for _ in range(2):
        first, second = ask(load(relay.address), long)
        assert first is None
        assert second is not None
    assert len(relay.requests) == 2


def test_after_a_failure_only_what_is_missing_is_asked_for(relay, load) -> None:
    relay.refuse = lambda number: (500, {}) if number == 4 else None
    model = load(relay.address, parallel_requests=1)
    with pytest.raises(UserError, match=r"not now.*run again"):
        ask(model)
    relay.refuse = lambda number: None
    before = relay.requests.copy()
    replies = ask(load(relay.address, parallel_requests=2))
    assert None not in replies
    # A worker that had the next request in its hands finished it.
    answered = [request for request in before if request != before[3]]
    asked = relay.requests[len(before) :]
    assert len(answered) + len(asked) == len(QUESTIONS)
    assert not [request for request in asked if request in answered]


def test_a_refused_request_is_sent_again(relay, load) -> None:
    """With the pause that the server asks for, 429, and with one of the client's own, 503."""
    answers = {1: (429, {"Retry-After": "1"}), 2: (503, {})}
    relay.refuse = answers.get
    [reply] = ask(load(relay.address, retries=2), QUESTIONS[:1])
    assert reply is not None
    assert relay.requests == [relay.requests[0]] * 3
    first, second, third = relay.times
    assert second - first >= 1
    assert third - second >= 0.5


def test_too_many_requests_for_too_long_is_an_error(relay, load) -> None:
    relay.refuse = lambda number: (429, {"retry-after-ms": "1"})
    with pytest.raises(UserError, match=r"too many requests.*not now.*requests_per_minute"):
        ask(load(relay.address, retries=2, parallel_requests=1), QUESTIONS[:1])
    assert len(relay.requests) == 3


def test_requests_keep_the_pace_from_all_threads_and_when_retried(relay, load) -> None:
    relay.refuse = lambda number: (429, {"retry-after-ms": "1"}) if number == 1 else None
    start = time.monotonic()
    ask(load(relay.address, requests_per_minute=300.0, retries=1), QUESTIONS[:3])
    # The question for the models, three requests and one more try, a fifth of a second apart.
    assert len(relay.times) == 4
    assert relay.times[-1] - start >= 4 * 0.2


def test_pace() -> None:
    pace = Pace(6000.0)

    def work() -> None:
        for _ in range(5):
            pace.wait()

    start = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 19 * 0.01
    start = time.monotonic()
    for _ in range(1000):
        Pace(None).wait()
    assert time.monotonic() - start < 1


def test_a_wrong_address_is_named_at_once(load, server) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached.*correct generation_server\.address"):
        load("http://127.0.0.1:9/v1", retries=6)
    assert time.monotonic() - start < 5
    with pytest.raises(UserError, match=r"404.*usually ends in /v1"):
        load(server.removesuffix("v1") + "v2")


@pytest.mark.parametrize("body", [b"<html>Hello</html>", b"{}", b'{"data": null}', b"[]"])
def test_what_is_no_such_server_is_named(load, body: bytes) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header(
                "Content-Type", "text/html" if body[0] == ord("<") else "application/json"
            )
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=r"not one of OpenAI's protocol|no model"):
            load(f"http://127.0.0.1:{page.server_address[1]}")
        page.shutdown()


def test_an_answer_without_a_reply_is_named(relay, load) -> None:
    relay.refuse = lambda number: (200, {})
    with pytest.raises(UserError, match=r"not one of OpenAI's protocol"):
        ask(load(relay.address), QUESTIONS[:1])


def test_a_wrong_model_is_named(server, load) -> None:
    with pytest.raises(UserError, match=r"no model 'llama' there; it serves smollm2.*`model`"):
        load(server, model="llama")


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    gguf, load, tmp_path, monkeypatch, caplog, capfd
) -> None:
    caplog.set_level("DEBUG")
    with serving(gguf, key="open-sesame") as address, relaying(address) as relay:
        monkeypatch.delenv(KEY, raising=False)
        with pytest.raises(UserError, match=rf"refuses the key \(401\).*{KEY}"):
            load(relay.address)
        monkeypatch.setenv(KEY, "shut-sesame")
        with pytest.raises(UserError, match=rf"refuses the key \(401\).*{KEY}") as raised:
            load(relay.address)
        assert "sesame" not in str(raised.value)
        monkeypatch.setenv(KEY, "open-sesame")
        assert ask(load(relay.address), QUESTIONS[:1]) != [None]
        assert relay.keys[-1] == "Bearer open-sesame"
        # A server that quotes the key in what it refuses.
        relay.change = lambda request: request | {"messages": "open-sesame"}
        with pytest.raises(UserError) as raised:
            ask(load(relay.address), QUESTIONS[1:2])
        assert "\n" not in str(raised.value)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    told = [caplog.text, *capfd.readouterr(), *written, str(raised.value)]
    assert not [text for text in told if "sesame" in text]


def test_a_key_in_the_servers_words_is_struck_out(relay, load, monkeypatch) -> None:
    monkeypatch.setenv(KEY, "not now")  # what the relay says
    relay.refuse = lambda number: (400, {})
    with pytest.raises(UserError, match=r"400 - \[key\]"):
        ask(load(relay.address), QUESTIONS[:1])


def test_the_journal_holds_every_reply_whatever_thread_it_comes_from(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "replies.jsonl")
    reply = Reply("text " * 200, 1, 2, complete=True)

    def put(first: int) -> None:
        for number in range(first, first + 25):
            journal.put(Journal.key(number), [reply])

    threads = [threading.Thread(target=put, args=(25 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Journal(tmp_path / "replies.jsonl")
    assert [again.get(Journal.key(number)) for number in range(200)] == [[reply]] * 200
    lines = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert [json.loads(line)["replies"][0]["text"] for line in itertools.islice(lines, 200)]
