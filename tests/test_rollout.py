"""Playing in lock-step: who replies where, what is recorded, and what a row's replies are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gcd.acting.rollout import CONTEXT_LIMIT, play, visited_states
from gcd.core.interfaces import Reply
from gcd.core.records import Action, Conversation, Episode, Played, StateReply, TeacherState
from tests.scripted import Unread
from tests.tiny import assistant, user


@dataclass
class Countdown:
    """A sample that is solved by counting down from `start` to 0, one number a turn."""

    index: str
    start: int
    forgets: bool = False  # every turn starts a conversation of its own

    @property
    def problem(self) -> str:
        return f"Count down from {self.start}."

    @property
    def groups(self) -> dict[str, str]:
        return {"tier": "easy"}


@dataclass
class CountdownEnvironment:
    sample: Countdown
    messages: Conversation = field(default_factory=list)
    status: str = "running"
    score: float = 0.0
    measures: dict[str, float] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    left: int = 0
    closed: bool = False

    def __enter__(self) -> "CountdownEnvironment":
        self.left = self.sample.start
        self.messages = [user(self.sample.problem)]
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed = True

    def step(self, reply: str) -> str | None:
        if reply != str(self.left - 1):
            self.status = "agent invalid action"
            return None
        self.left -= 1
        if self.left == 0:
            self.status, self.score = "completed", 1.0
            return None
        seen = [] if self.sample.forgets else [*self.messages, assistant(reply)]
        self.messages = [*seen, user(f"left: {self.left}")]
        return self.messages[-1].content


class CountdownTask:
    """As much of a task as playing needs; remembers what it started."""

    def __init__(self) -> None:
        self.started: list[CountdownEnvironment] = []

    def start(self, sample: Countdown, settings: Any) -> CountdownEnvironment:
        self.started.append(CountdownEnvironment(sample))
        return self.started[-1]

    def parse_action(self, reply: str) -> Action | None:
        return Action(kind="say", content=reply) if reply.isdigit() else None


class ScriptedAgent(Unread):
    """Replies with `answer` of the last message; remembers how many it was asked at once."""

    deployment = "base"
    prompt_tokens = 7
    adapter_parameters = 0
    bytes_to_ship = 0

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer = answer
        self.asked: list[int] = []

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        self.asked.append(len(conversations))
        texts = [self.answer(conversation[-1].content) for conversation in conversations]
        return [None if text is None else Reply(text, 5, 2, complete=True) for text in texts]

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        return self.reply(conversations)


def count_down(message: str) -> str:
    return str(int(message.removesuffix(".").split()[-1]) - 1)


def played(
    agent: ScriptedAgent,
    starts: list[int],
    live: int,
    *,
    forgets: bool = False,
    work: Path | None = None,
) -> tuple[list[Episode], list[TeacherState], Any]:
    task: Any = CountdownTask()
    samples = [Countdown(f"s{number}", start, forgets) for number, start in enumerate(starts)]
    with TemporaryDirectory() as folder:
        place = work or Path(folder)
        made, _ = play(
            agent, task, None, samples, [], task_name="count", row="me", live=live, work=place
        )
    return [one.episode for one in made], visited_states(made, limit=9), task


def test_an_oracle_scores_1_in_every_sample_and_order_is_kept() -> None:
    agent = ScriptedAgent(count_down)
    episodes, _, task = played(agent, [3, 1, 2], live=2)
    assert [(episode.index, episode.score, len(episode.turns)) for episode in episodes] == [
        ("s0", 1.0, 3),
        ("s1", 1.0, 1),
        ("s2", 1.0, 2),
    ]
    # Two live at a time: s0 and s1 together, s0 alone twice, then s2 alone twice.
    assert agent.asked == [2, 1, 1, 1, 1]
    assert all(environment.closed for environment in task.started)
    assert {episode.prompt_tokens for episode in episodes} == {7}


def test_the_number_of_live_episodes_changes_nothing() -> None:
    one = played(ScriptedAgent(count_down), [3, 1, 2], live=1)
    all_at_once = played(ScriptedAgent(count_down), [3, 1, 2], live=9)
    assert one[:2] == all_at_once[:2]


def test_a_killed_run_plays_only_what_is_missing(tmp_path: Path) -> None:
    whole = played(ScriptedAgent(count_down), [3, 1, 2], live=1, work=tmp_path)
    (tmp_path / "me-2.jsonl").unlink()
    agent = ScriptedAgent(count_down)
    again = played(agent, [3, 1, 2], live=1, work=tmp_path)
    assert again[:2] == whole[:2]
    assert len(agent.asked) == 2


def test_a_silent_agent_scores_0() -> None:
    episodes, _, _ = played(ScriptedAgent(lambda message: ""), [3, 1], live=2)
    assert [episode.score for episode in episodes] == [0.0, 0.0]
    assert [episode.turns[0].action for episode in episodes] == [None, None]


def test_a_conversation_that_does_not_fit_ends_its_episode_only() -> None:
    agent = ScriptedAgent(lambda message: None if message == "left: 2" else count_down(message))
    episodes, _, _ = played(agent, [3, 2], live=2)
    assert [episode.status for episode in episodes] == [CONTEXT_LIMIT, "completed"]
    assert [len(episode.turns) for episode in episodes] == [1, 2]


def test_states_are_what_the_agent_read_before_each_reply() -> None:
    _, states, _ = played(ScriptedAgent(count_down), [2, 1], live=2)
    assert [state.messages for state in states] == [
        [user("Count down from 2.")],
        [user("Count down from 2."), assistant("1"), user("left: 1")],
        [user("Count down from 1.")],
    ]
    assert [state.index for state in states] == [0, 1, 2]
    assert [state.action and state.action.content for state in states] == ["1", "0", "0"]


def test_a_turn_continues_unless_the_task_starts_anew() -> None:
    """What a session's cache may hold: everything so far, or nothing but the prompt."""
    for forgets, expected in ((False, [False, True, True]), (True, [False, False, False])):
        [episode], states, _ = played(ScriptedAgent(count_down), [3], 1, forgets=forgets)
        assert [turn.continues for turn in episode.turns] == expected
        assert [len(state.messages) for state in states] == ([1, 1, 1] if forgets else [1, 3, 5])


def asked_beside(
    agent: ScriptedAgent, states: list[TeacherState], starts: list[int], live: int, work: Path
) -> tuple[list[Played], list[StateReply]]:
    """Episodes that count down from `starts`, and the states."""
    task: Any = CountdownTask()
    samples = [Countdown(f"s{number}", start) for number, start in enumerate(starts)]
    return play(
        agent, task, None, samples, states, task_name="count", row="me", live=live, work=work
    )


def test_state_replies_pair_the_rows_action_with_the_teachers(tmp_path: Path) -> None:
    _, states, _ = played(ScriptedAgent(count_down), [2], live=1)
    agent = ScriptedAgent(lambda message: None if "left" in message else "1")
    _, answers = asked_beside(agent, states, [1], 1, tmp_path)
    first = Action(kind="say", content="1")
    assert [(answer.action, answer.teacher_action) for answer in answers] == [
        (first, first),
        (None, Action(kind="say", content="0")),
    ]
    assert answers[1].reply == ""


def test_states_are_asked_once_beside_the_first_episodes_shortest_first(tmp_path: Path) -> None:
    """Shortest first, so that sessions can go on; after the episodes' end, if need be."""
    _, states, _ = played(ScriptedAgent(count_down), [3, 2], live=2)
    asked: list[list[int]] = []

    class Watched(ScriptedAgent):
        def reply(self, conversations):
            asked.append([len(messages) for messages in conversations])
            return super().reply(conversations)

    agent = Watched(count_down)
    episodes, answers = asked_beside(agent, states, [2, 1, 1], 2, tmp_path)
    assert asked == [[1, 1, 1, 1], [3, 3, 3], [5], [1]]
    assert [answer.index for answer in answers] == [0, 1, 2, 3, 4]
    assert all(answer.action == answer.teacher_action for answer in answers)
    assert [one.episode.score for one in episodes] == [1.0, 1.0, 1.0]
    asked.clear()
    assert asked_beside(agent, states, [2, 1, 1], 2, tmp_path) == (episodes, answers)
    assert asked == []  # all was kept
