"""The AgentBench client: what it sends, what it makes of answers, and what it does about faults."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.agentbench import ServerEnvironment, ServerSample, fetch, live_episodes, served
from gcd.agentbench_api import RefusedError, Server
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply, load_task
from gcd.core.records import Action, Message, read_records, write_records
from gcd.data import read_prompt
from gcd.history_window import count_segments, filter_messages, is_whole, without_prompt
from gcd.rollout import play
from stages import prepare
from tests.agentbench_server import Exchange, Replay, replaying, settings

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ServerSample(key="a-1", task="os-std")
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


def environment(replay: Replay, **changes: Any) -> ServerEnvironment:
    return ServerEnvironment(SAMPLE, settings(replay.address, **changes))


# Playing.


def test_an_episode_is_started_played_and_judged_by_the_server():
    more = [("user", "Count."), ("agent", "ls"), ("user", "3")]
    with replaying(
        starting(),
        replying("ls", 200, output("running", *more)),
        replying("three", 200, output("completed", result={"result": True})),
    ) as replay:
        with environment(replay) as played:
            assert played.messages == [Message(role="user", content="Count.")]
            assert played.step("ls") == "3"
            assert [message.role for message in played.messages] == ["user", "assistant", "user"]
            assert (played.status, played.score) == ("running", 0.0)
            assert played.step("three") is None
        assert (played.status, played.score, played.error) == ("completed", 1.0, None)
        assert [path for path, _ in replay.received] == [
            "/api/start_sample",
            "/api/interact",
            "/api/interact",
        ]


@pytest.mark.parametrize(
    ("result", "score"),
    [
        ({"result": True}, 1.0),
        ({"result": False, "reason": "round limit"}, 0.0),
        ({"reward": 0.75, "history": []}, 0.75),
        ({"reward": 0, "history": []}, 0.0),
    ],
)
def test_scores_of_os_interaction_and_web_shopping(result, score):
    with (
        replaying(starting(), replying("x", 200, output("completed", result=result))) as replay,
        environment(replay) as played,
    ):
        played.step("x")
    assert played.score == score


def test_web_browsing_is_judged_by_the_server_which_has_the_labels():
    result = {"final_prediction": ["12", "CLICK "], "outputs": []}
    record = {"index": "a-1", "status": "completed", "result": result, "history": None}
    metrics = {"element_acc": 100.0, "action_f1": 50.0, "step_sr": 0.0}
    asked = {"name": "os-std", "results": [record]}
    with (
        replaying(
            starting(),
            replying("x", 200, output("completed", result=result)),
            Exchange("/api/calculate_overall", asked, 200, metrics),
        ) as replay,
        environment(replay) as played,
    ):
        played.step("x")
    assert played.score == 0.0
    assert played.measures == {"element_accuracy": 1.0, "action_f1": 0.5}


def test_an_agent_without_room_says_so_and_the_server_judges():
    body = {"session_id": 7, "agent_response": {"status": "agent context limit"}}
    answer = output("agent context limit", result={"result": False})
    with replaying(starting(), Exchange("/api/interact", body, 200, answer)) as replay:
        with environment(replay) as played:
            played.status = "agent context limit"
        assert (played.status, played.score) == ("agent context limit", 0.0)
        assert "/api/cancel" not in dict(replay.received)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_sessions_are_cancelled_whatever_ends_the_block(error):
    with replaying(starting(), CANCEL) as replay:
        with pytest.raises(error), environment(replay):
            raise error
        assert replay.received[-1] == ("/api/cancel", {"session_id": 7})


def test_a_failing_cancel_is_no_error():
    with replaying(starting()) as replay, environment(replay):  # answers 500 to cancel
        pass


# Faults.


def test_waits_for_a_free_worker():
    with replaying(BUSY, BUSY, starting(), CANCEL) as replay:
        with environment(replay) as played:
            assert played.status == "running"
        assert [path for path, _ in replay.received].count("/api/start_sample") == 3


def test_no_free_worker_in_the_end():
    with replaying(*[BUSY] * 4) as replay:
        with pytest.raises(UserError, match="no free worker for os-std after 3 more tries"):
            environment(replay).__enter__()
        assert len(replay.received) == 4


def test_an_unknown_task_is_not_waited_for():
    with replaying(starting(406, {"detail": "Error: Task does not exist"})) as replay:
        with pytest.raises(UserError, match="no task 'os-std' there"):
            environment(replay).__enter__()
        assert len(replay.received) == 1


def test_a_sample_that_cannot_start_is_recorded():
    refusal = starting(400, {"detail": "Error: Index out of bounds"})
    with replaying(refusal) as replay, environment(replay) as played:
        pass
    assert (played.status, played.score) == ("unknown", 0.0)
    assert "400" in str(played.error) and "Index out of bounds" in str(played.error)


def test_a_sample_that_ends_at_its_start_is_recorded():
    response = output("unknown", result={"result": False, "error": "init failed"})
    with replaying(starting(response=response)) as replay, environment(replay) as played:
        pass
    assert (played.status, played.error) == ("unknown", "init failed")
    assert len(replay.received) == 1


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "Error: Session does not exist"),
        (422, "If status is NORMAL, content should not be None"),
        (501, "Error: Worker returned error\nTraceback"),
    ],
)
def test_a_lost_session_is_a_task_error(status, detail):
    with replaying(starting(), replying("x", status, {"detail": detail}), CANCEL) as replay:
        with environment(replay) as played:
            assert played.step("x") is None
        assert (played.status, played.score) == ("task error", 0.0)
        assert str(status) in str(played.error)
        assert replay.received[-1][0] == "/api/cancel"


def test_a_reply_after_the_idle_limit_is_explained():
    gone = replying("x", 400, {"detail": "Error: Session does not exist"})
    with replaying(starting(), gone) as replay:
        with environment(replay, turn_seconds=0.2) as played:
            time.sleep(0.3)
            played.step("x")
        assert played.status == "task error"
        assert "ends a session after 0.2 s" in str(played.error)


def test_an_answer_that_does_not_come_is_a_task_error():
    slow = replying("x", 200, output("completed", result={"result": True}), delay=0.5)
    with replaying(starting(), slow) as replay:
        with environment(replay, turn_seconds=0.1) as played:
            played.step("x")
        assert (played.status, played.score) == ("task error", 0.0)
        assert "no answer to interact within 0.1 s" in str(played.error)


@pytest.mark.parametrize("response", ["<html>", '{"session_id": 7}', "[]", '{"session_id": "x"}'])
def test_an_answer_of_another_program(response):
    with (
        replaying(starting(response=response)) as replay,
        pytest.raises(UserError, match="not an answer of AgentBench"),
    ):
        environment(replay).__enter__()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/api", "localhost:5000", "http://[/api"])
def test_no_server(address):
    with pytest.raises(UserError, match="cannot be reached"):
        ServerEnvironment(SAMPLE, settings(address)).__enter__()


def test_a_wrong_prompt_length_is_a_mistake_of_the_user():
    with replaying(starting(), CANCEL) as replay:
        with pytest.raises(UserError, match=r"correct server\.prompt_messages"):
            environment(replay, prompt_messages=5).__enter__()
        assert replay.received[-1][0] == "/api/cancel"


# The samples, the prompt, the workers.


def task_settings(address: str, count: int = 2) -> Any:
    return SimpleNamespace(server=settings(address), test=SimpleNamespace(count=count))


def test_samples_and_prompt_come_from_the_server(tmp_path):
    indices = Exchange("/api/get_indices?name=os-std", None, 200, [3, "b", 9])
    unknown = starting(response={"session_id": 1, "output": {"status": "unknown"}}, key=3)
    with replaying(indices, unknown, starting(key="b"), CANCEL) as replay:
        samples, prompt = fetch(task_settings(replay.address))
        assert replay.received[-1][0] == "/api/cancel"
    assert [sample.key for sample in samples] == [3, "b"]
    assert [sample.index for sample in samples] == ["3", "b"]
    assert [(m.role, m.content) for m in prompt] == [("user", "Rules."), ("assistant", "Ok.")]
    write_records(tmp_path / "test.jsonl", samples)
    assert read_records(tmp_path / "test.jsonl", ServerSample) == samples


def test_a_prompt_that_the_window_has_cut_is_not_taken():
    indices = Exchange("/api/get_indices?name=os-std", None, 200, [1])
    cut = {"status": "running", "history": turns(
        ("user", "Rules.\n\n[NOTICE] 2 messages are omitted."), ("agent", "x"), ("user", "y"),
    )}  # fmt: skip
    with (
        replaying(
            indices, starting(response={"session_id": 7, "output": cut}, key=1), CANCEL
        ) as replay,
        pytest.raises(UserError, match="begins with a prompt of 2 messages"),
    ):
        fetch(task_settings(replay.address))


def test_an_unknown_task_has_no_indices():
    refusal = Exchange(
        "/api/get_indices?name=os-std", None, 400, {"detail": "Error: Task does not exist"}
    )
    with replaying(refusal) as replay, pytest.raises(UserError, match="no task 'os-std' there"):
        Server(settings(replay.address)).indices()


def worker(capacity: int, current: int, status: int) -> dict[str, Any]:
    return {"capacity": capacity, "current": current, "status": status, "address": "x"}


def test_as_many_episodes_as_there_are_free_workers():
    tasks = {
        "os-std": {
            "indices": [1],
            # 3 free; one that does not answer, one that is dead.
            "workers": {"0": worker(4, 1, 0), "1": worker(5, 0, 1), "2": worker(5, 0, 2)},
        },
        "other": {"indices": [1], "workers": {"0": worker(9, 0, 0)}},
    }
    for wanted, live in [(2, 2), (36, 3)]:
        with replaying(Exchange("/api/list_workers", None, 200, tasks)) as replay:
            assert live_episodes(settings(replay.address), wanted) == live
    with replaying(Exchange("/api/list_workers", None, 200, {})) as replay:
        assert live_episodes(settings(replay.address), 36) == 1


def test_an_address_without_a_controller():
    with (
        replaying(Exchange("/api/list_workers", None, 404, {"detail": "Not Found"})) as replay,
        pytest.raises(UserError, match="no AgentBench controller there"),
    ):
        live_episodes(settings(replay.address), 2)


def test_any_task_can_be_served():
    task: Any = SimpleNamespace(parse_action=str.upper, start=None, read_samples=None)
    moved = served(task)
    played: Any = moved.start(SAMPLE, task_settings("http://x"))
    assert isinstance(played, ServerEnvironment)
    assert moved.parse_action("x") == "X"  # type: ignore[comparison-overlap]


class Script:
    """An agent that says what it is told to say, by the last message that it reads."""

    prompt_tokens = 5

    def __init__(self, **says: str | None) -> None:
        self.says = says

    def reply(self, conversations: Any) -> list[Reply | None]:
        texts = [self.says[messages[-1].content] for messages in conversations]
        return [text if text is None else Reply(text, 1, 1, True) for text in texts]


def test_episodes_are_recorded_as_of_any_other_environment(tmp_path):
    def session(number: int, **agent: str) -> dict[str, Any]:
        return {"session_id": number, "agent_response": agent}

    first = [("user", "count")]
    more = [*first, ("agent", "ls"), ("user", "see")]
    failed = {"result": False}
    with replaying(
        starting(key=1, response=output("running", *first, session=1)),
        starting(key=2, response=output("running", ("user", "long"), session=2)),
        Exchange("/api/interact", session(1, status="normal", content="ls"), 200,
                 output("running", *more, session=1)),
        Exchange("/api/interact", session(2, status="agent context limit"), 200,
                 output("agent context limit", result=failed, session=2)),
        Exchange("/api/interact", session(1, status="normal", content="3"), 200,
                 output("completed", result={"result": True}, session=1)),
    ) as replay:  # fmt: skip
        task: Any = SimpleNamespace(parse_action=lambda reply: Action(kind="say", content=reply))
        samples = [ServerSample(key=key, task="os-std") for key in (1, 2)]
        agent: Any = Script(count="ls", see="3", long=None)
        played = play(
            agent, served(task), task_settings(replay.address), samples,
            task_name="os_interaction", row="gcd", live=2, work=tmp_path,
        )  # fmt: skip
        assert replay.exchanges == []
    done, unread = (one.episode for one in played)
    assert (done.index, done.status, done.score) == ("1", "completed", 1.0)
    assert [turn.observation for turn in done.turns] == ["see", None]
    assert [turn.continues for turn in done.turns] == [False, True]
    assert done.details["backend"] == "agentbench"
    assert (unread.status, unread.score, unread.turns) == ("agent context limit", 0.0, [])
    assert [[m.content for m in messages] for messages in played[0].read] == [
        ["count"],
        ["count", "ls", "see"],
    ]


def test_refusals_name_their_code():
    assert str(RefusedError(400, "no")) == "400: no"
    assert str(RefusedError(None, "late")) == "late"


# The window.


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 0),
        ("abcdefg", 1),  # a segment holds 7 letters
        ("abcdefgh", 2),
        ("ab cd", 2),
        ("ab1cd", 3),  # a digit is one, and ends a word
        ("a_b", 3),
        ("12", 2),
        ("ä²", 2),  # a letter of any alphabet; a superscript is none
        (" \n", 0),
        ("\t", 1),  # only blanks and line ends are free
    ],
)
def test_segments(text, segments):
    assert count_segments(text) == segments


def conversation(*lengths: int) -> list[Message]:
    """Messages of so many segments."""
    return [
        Message(role="assistant" if place % 2 else "user", content="." * length)
        for place, length in enumerate(lengths)
    ]


def test_the_window_keeps_what_stays_below_its_limit():
    whole = conversation(1000, 1000, 1499)
    assert filter_messages(whole) == whole
    assert is_whole(filter_messages(whole))
    # One segment more: the last message does not fit with the one before, and cannot be first.
    first, *rest = filter_messages(conversation(1000, 1000, 1500))
    assert rest == []
    assert first.content == "." * 1000 + "\n\n[NOTICE] 2 messages are omitted."


def test_the_window_begins_with_the_agent():
    messages = conversation(10, 10, 2000, 10, 10, 10, 1500)
    kept = filter_messages(messages)
    # 10 + 1500 + 10 + 10 + 10 fit and 2000 more do not; messages 3 to 6 begin with the agent.
    assert kept[1:] == messages[3:]
    assert kept[0].content.endswith("[NOTICE] 2 messages are omitted.")
    messages = conversation(10, 2000, 10, 10, 1500)
    # Messages 2 to 4 fit, but 2 is the user's.
    assert filter_messages(messages)[1:] == messages[3:]


def test_an_only_message_is_never_cut():
    assert filter_messages(conversation(9000)) == conversation(9000)


NOTICE = "\n\n[NOTICE] {} messages are omitted."


@pytest.mark.parametrize(
    ("omitted", "left", "expected"),
    [
        # A conversation of 9 messages, 0 to 8; the first 4 are the prompt.
        (0, "012345678", "45678"),
        (2, "0345678", "45678"),  # the rest of the prompt goes, the conversation is whole
        (4, "05678", "N5678"),  # message 4 is lost: the notice stands for it
        (6, "078", "N78"),
        (8, "0", "N"),
    ],
)
def test_the_prompt_is_stripped_from_what_the_window_left(omitted, left, expected):
    texts = {str(place): f"message {place}" for place in range(9)}
    history = [
        Message(role="assistant" if int(name) % 2 else "user", content=texts[name]) for name in left
    ]
    if omitted:
        first = history[0].content + NOTICE.format(omitted)
        history[0] = Message(role="user", content=first)
    texts["N"] = f"[NOTICE] {omitted} messages are omitted."
    stripped = without_prompt(history, 4)
    assert [message.content for message in stripped] == [texts[name] for name in expected]
    assert [message.role for message in stripped][::2] == ["user"] * (len(expected) // 2 + 1)


# The stage.


def stage_params(tmp_path, address: str, data: str = "generated") -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    changes: dict[str, Any] = {"backend": "agentbench", "data": data}
    changes["server"] = settings(address).model_dump()
    params["tasks"]["os_interaction"].update(changes)
    yaml.dump(params, tmp_path / "params.yaml")


def test_prepare_writes_the_servers_samples_and_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    indices = Exchange("/api/get_indices?name=os-std", None, 200, ["a-1", "a-2"])
    with replaying(indices, starting(), CANCEL) as replay:
        stage_params(tmp_path, replay.address)
        prepare.main("os_interaction")
    samples = read_records(tmp_path / "data/tasks/os_interaction/test.jsonl", ServerSample)
    assert [sample.key for sample in samples] == ["a-1", "a-2"]
    text, messages = read_prompt("os_interaction")
    assert text == "<!-- user -->\nRules.\n<!-- assistant -->\nOk."
    assert [message.content for message in messages] == ["Rules.", "Ok."]
    # The rest stays generated.
    folder = tmp_path / "data/tasks/os_interaction"
    assert {path.name for path in folder.iterdir()} == {
        "prompt.md",
        "test.jsonl",
        "development.jsonl",
        "demonstrations.jsonl",
        "skipped.jsonl",
    }
    assert load_task("os_interaction").read_samples(folder / "development.jsonl")


def test_a_server_and_files_cannot_both_have_the_samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage_params(tmp_path, "http://x", data="files")
    with pytest.raises(UserError, match="set data: generated"):
        prepare.main("os_interaction")
