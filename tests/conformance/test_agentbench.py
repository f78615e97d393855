"""AgentBench v0.2's history window and its HTTP protocol, as recorded from the original code."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

from gcd.acting.agentbench import ServerEnvironment, ServerSample
from gcd.acting.agentbench_api import Output, RefusedError, Server
from gcd.acting.history_window import count_segments, filter_messages
from gcd.core.errors import UserError
from gcd.core.records import Conversation, Message
from tests.agentbench_server import Exchange, Replay, replaying, settings

PROMPT_MESSAGES = 6  # of OS interaction


def numbered(segments: list[int]) -> Conversation:
    """Messages of so many segments, each of another character that is no letter."""
    return [
        Message(role="assistant" if place % 2 else "user", content=chr(0x2460 + place) * count)
        for place, count in enumerate(segments)
    ]


def window_agrees(case: dict[str, Any]) -> bool:
    messages = numbered(case["segments"])
    kept = filter_messages(messages)
    return (
        len(kept) == case["kept"]
        and kept[0].content == messages[0].content + case["first_suffix"]
        and kept[1:] == [messages[place] for place in case["kept_from"]]
    )


def test_history_windows(realdata, tally):
    cases = json.loads(realdata("os", "oracle", "session_window_examples.json").read_text())
    results = [
        (f"segments[{place}]", count_segments(case["text"]) == case["segments"])
        for place, case in enumerate(cases["calc_segments"])
    ]
    results += [
        (f"windows[{place}]", window_agrees(case)) for place, case in enumerate(cases["windows"])
    ]
    tally("history windows", results)


def exchange(entry: dict[str, Any]) -> Exchange:
    return Exchange(entry["path"], entry["request"], entry["status"], entry["response"])


def call(server: Server, entry: dict[str, Any]) -> Any:
    """Make the call of `entry`."""
    request = entry["request"]
    match entry["path"].rpartition("/")[2]:
        case "start_sample":
            return server.start(request["index"]).model_dump()
        case "interact":
            return server.interact(request["session_id"], request["agent_response"]).model_dump()
        case "cancel":
            return server.cancel(request["session_id"])
        case "calculate_overall":
            return server.overall(dict[str, Any], request["results"])
    raise AssertionError(f"unexpected call {entry['path']}")


def call_agrees(entry: dict[str, Any]) -> bool:
    """Whether we send the recorded request, and read or refuse the recorded answer."""
    with replaying(exchange(entry)) as replay:
        task = entry["request"].get("name", "os-dev-local")
        try:
            answer = call(Server(settings(replay.address, task=task, retries=1)), entry)
        except (RefusedError, UserError) as error:
            right = entry["status"] != 200 and str(entry["status"]) in str(error)
        else:
            right = entry["status"] == 200 and answer in (entry["response"], None)
        return right and replay.received == [(entry["path"], entry["request"])]


def play(replay: Replay, entries: list[dict[str, Any]]) -> ServerEnvironment:
    """Give the recorded replies of one session, whose first entry starts it."""
    name, index = entries[0]["request"]["name"], entries[0]["request"]["index"]
    sample = ServerSample(key=index, task=name)
    chosen = settings(replay.address, task=name, prompt_messages=PROMPT_MESSAGES)
    with ServerEnvironment(sample, chosen) as played:
        for before, entry in pairwise(entries):
            check_messages(played, before)
            reply = entry["request"].get("agent_response", {"status": "cancelled"})
            if reply["status"] == "normal":
                played.step(reply["content"])
            elif reply["status"] == "agent context limit":
                played.status = "agent context limit"
    return played


def check_messages(played: ServerEnvironment, entry: dict[str, Any]) -> None:
    """What the agent reads: the end of what the server sent, nothing of its prompt."""
    history = entry["response"]["output"]["history"]
    contents = [message.content for message in played.messages]
    assert [message.role for message in played.messages[::2]] == ["user"] * len(contents[::2])
    assert contents[-1] == history[-1]["content"]
    sent = [item["content"] for item in history]
    if "[NOTICE]" in sent[0]:
        assert contents[1:] == sent[1:]
        assert sent[0].endswith(f"\n\n{contents[0]}")
    else:
        assert contents == sent[PROMPT_MESSAGES:]


def session_agrees(entries: list[dict[str, Any]]) -> bool:
    with replaying(*map(exchange, entries)) as replay:
        try:
            played = play(replay, entries)
        except AssertionError:
            return False
        output = entries[-1]["response"].get("output")
        if output is not None:
            passed = float(output["result"]["result"])
            right = (played.status, played.score) == (output["status"], passed)
        else:
            right = True  # cancelled
        wanted = [(entry["path"], entry["request"]) for entry in entries]
        return right and replay.received == wanted


def sessions(log: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The exchanges of each session of which the start and the end were recorded."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in log:
        if entry["status"] == 200 and "session_id" in entry["response"]:
            found[entry["response"]["session_id"]].append(entry)
    return [
        entries
        for entries in found.values()
        if entries[0]["path"].endswith("start_sample")
        and entries[-1]["response"].get("output", {}).get("status") != "running"
    ]


def judged_right(recorded: dict[str, Any]) -> bool:
    played = ServerEnvironment(ServerSample(key="x", task="x"), settings("http://x"))
    played._take(Output.model_validate(recorded))
    return (played.status, played.score) == (
        recorded["status"],
        float(recorded["result"]["result"]),
    )


def test_agentbench_exchange(realdata, tally):
    file = realdata("os", "oracle", "agentbench_v02_http_transcript.json")
    recorded = json.loads(file.read_text())
    results = [(f"log[{n}]", call_agrees(entry)) for n, entry in enumerate(recorded["log"])]
    results += [
        (f"session {entries[0]['response']['session_id']}", session_agrees(entries))
        for entries in sessions(recorded["log"])
    ]
    results += [(f"outs[{n}]", judged_right(out)) for n, out in enumerate(recorded["outs"])]
    tally("agentbench exchange", results)
