"""Let an agent act: many episodes in lock-step, every turn recorded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gcd.core.interfaces import Agent, Environment, Reply, Sample, Task
from gcd.core.records import (
    Conversation,
    Episode,
    Message,
    Played,
    StateReply,
    TeacherState,
    Turn,
    read_records,
    write_records,
)

CONTEXT_LIMIT = "agent context limit"  # AgentBench's word for a conversation that does not fit


def play(
    agent: Agent,
    task: Task,
    settings: Any,
    samples: Sequence[Sample],
    *,
    task_name: str,
    row: str,
    live: int,
    work: Path,
) -> list[Played]:
    """One episode a sample, in the order given.

    Args:
        agent: answers all running conversations of a round in one call.
        task: the task's module, with its `settings`.
        samples: what to play.
        task_name, row: what the records are labelled with.
        live: episodes that run at the same time. Each such group is kept in `work` when it is
            done, and a killed run continues after the last one.
    """
    played: list[Played] = []
    for start in range(0, len(samples), live):
        finished = work / f"{row}-{start}.jsonl"
        if not finished.exists():
            group = samples[start : start + live]
            write_records(finished, _play_group(agent, task, settings, group, task_name, row))
        played += read_records(finished, Played)
    return played


def _play_group(
    agent: Agent, task: Task, settings: Any, samples: Sequence[Sample], task_name: str, row: str
) -> list[Played]:
    """`play` for samples that all run at the same time."""
    with ExitStack() as stack:
        environments = [stack.enter_context(task.start(sample, settings)) for sample in samples]
        everything = _run(agent, task, environments)
        return [
            Played(
                episode=Episode(
                    task=task_name,
                    row=row,
                    index=sample.index,
                    groups=sample.groups,
                    problem=sample.problem,
                    status=environment.status,
                    score=environment.score,
                    measures=environment.measures,
                    details=environment.details,
                    prompt_tokens=agent.prompt_tokens,
                    turns=[turn for _, turn in turns],
                    error=environment.error,
                ),
                read=[messages for messages, _ in turns],
            )
            for sample, environment, turns in zip(samples, environments, everything, strict=True)
        ]


def _run(
    agent: Agent, task: Task, environments: list[Environment]
) -> list[list[tuple[Conversation, Turn]]]:
    """Play all environments to their end; for each, what the agent read and the turn it took."""
    played: list[list[tuple[Conversation, Turn]]] = [[] for _ in environments]
    # A command may run for seconds; threads keep one slow sandbox from holding up the others.
    with ThreadPoolExecutor(max_workers=len(environments)) as pool:
        while True:
            running = [place for place, item in enumerate(environments) if item.status == "running"]
            if not running:
                return played
            read = {place: environments[place].messages for place in running}
            replies = agent.reply(list(read.values()))
            for place, reply in zip(running, replies, strict=True):
                if reply is None:
                    environments[place].status = CONTEXT_LIMIT
            answered = [
                (place, reply)
                for place, reply in zip(running, replies, strict=True)
                if reply is not None
            ]
            observations = pool.map(lambda pair: environments[pair[0]].step(pair[1].text), answered)
            for (place, reply), observation in zip(answered, observations, strict=True):
                before = played[place][-1] if played[place] else None
                turn = _turn(task, reply, observation, continues=_continues(before, read[place]))
                played[place].append((read[place], turn))


def _continues(before: tuple[Conversation, Turn] | None, messages: Conversation) -> bool:
    """Whether `messages` begin with what was read and replied in the turn before."""
    if before is None:
        return False
    so_far = [*before[0], Message(role="assistant", content=before[1].reply)]
    return messages[: len(so_far)] == so_far


def _turn(task: Task, reply: Reply, observation: str | None, *, continues: bool) -> Turn:
    return Turn(
        reply=reply.text,
        context_tokens=reply.context_tokens,
        reply_tokens=reply.reply_tokens,
        complete=reply.complete,
        continues=continues,
        action=task.parse_action(reply.text),
        observation=observation,
    )


def visited_states(played: list[Played], limit: int) -> list[TeacherState]:
    """The first `limit` states in which the agent replied, in order, and what it did there."""
    visited = [
        (messages, turn.action)
        for one in played
        for messages, turn in zip(one.read, one.episode.turns, strict=True)
    ]
    return [
        TeacherState(index=index, messages=messages, action=action)
        for index, (messages, action) in enumerate(visited[:limit])
    ]


def answer_states(agent: Agent, task: Task, states: list[TeacherState]) -> list[StateReply]:
    """What `agent` does in each state that the teacher visited; states that do not fit count too.

    A conversation that does not fit the agent's context gives an empty reply without an action.
    """
    rounds: dict[int, list[TeacherState]] = {}
    for state in states:
        rounds.setdefault(len(state.messages), []).append(state)
    replies: dict[int, Reply | None] = {}
    # Shortest first: a state goes on where an earlier one of its episode ended, and an agent that
    # has read that one need not read it again.
    for _, together in sorted(rounds.items()):
        answered = agent.reply([state.messages for state in together])
        replies.update(zip([state.index for state in together], answered, strict=True))
    answers = []
    for state in states:
        reply = replies[state.index]
        text = reply.text if reply else ""
        answers.append(
            StateReply(
                index=state.index,
                reply=text,
                action=task.parse_action(text),
                teacher_action=state.action,
            )
        )
    return answers
