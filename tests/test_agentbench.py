"""The AgentBench client: what it sends, what it makes of answers, and what it does about faults."""

import time
from typing import Any

import pytest

from gcd.acting.agentbench import ServerEnvironment, ServerSample
from gcd.core.errors import UserError
from gcd.core.records import Message
from tests.agentbench_server import (
    BUSY,
    CANCEL,
    Exchange,
    Replay,
    output,
    replaying,
    replying,
    settings,
    starting,
)

SAMPLE = ServerSample(key="a-1", task="os-std")


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
