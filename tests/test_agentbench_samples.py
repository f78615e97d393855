"""What is an AgentBench server's: the samples, the prompt, the number of episodes at a time."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.acting.agentbench import ServerEnvironment, ServerSample, fetch, live_episodes, served
from gcd.acting.agentbench_api import RefusedError, Server
from gcd.acting.rollout import play
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply, load_task
from gcd.core.records import Action, read_records, write_records
from gcd.data import read_prompt
from stages import prepare
from tests.agentbench_server import (
    CANCEL,
    Exchange,
    output,
    replaying,
    settings,
    starting,
    turns,
)

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ServerSample(key="a-1", task="os-std")


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
        played, _ = play(
            agent, served(task), task_settings(replay.address), samples, [],
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
        "problems.jsonl",
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
