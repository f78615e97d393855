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
    states: Sequence[TeacherState],
    *,
    task_name: str,
    row: str,
    live: int,
    work: Path,
) -> tuple[list[Played], list[StateReply]]:
    """One episode a sample and one reply a state, in the orders given.

    Args:
        agent: answers all running conversations of a round in one call.
        task: the task's module, with its `settings`.
        samples: what to play; at least one.
        states: that the teacher visited; asked beside the first episodes. One that does not fit
            the agent's context counts as an empty reply without an action.
        task_name, row: what the records are labelled with.
        live: episodes that run at the same time. Each such group is kept in `work` when it is
            done, and a killed run continues after the last one.
    """
    played: list[Played] = []
    answers: list[StateReply] = []
    for start in range(0, len(samples), live):
        finished, answered = work / f"{row}-{start}.jsonl", work / f"{row}-{start}-states.jsonl"
        if not finished.exists():
            group = samples[start : start + live]
            asked = [] if start else states
            made, replies = _play_group(agent, task, settings, group, asked, task_name, row)
            write_records(answered, replies)
            write_records(finished, made)
        played += read_records(finished, Played)
        answers += read_records(answered, StateReply)
    return played, answers


def _play_group(
    agent: Agent,
    task: Task,
    settings: Any,
    samples: Sequence[Sample],
    states: Sequence[TeacherState],
    task_name: str,
    row: str,
) -> tuple[list[Played], list[StateReply]]:
    """`play` for samples that all run at the same time."""
    with ExitStack() as stack:
        environments = [stack.enter_context(task.start(sample, settings)) for sample in samples]
        everything, replies = _run(agent, task, environments, states)
        episodes = [
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
    return episodes, [
        _state_reply(task, state, reply) for state, reply in zip(states, replies, strict=True)
    ]


def _state_reply(task: Task, state: TeacherState, reply: Reply | None) -> StateReply:
    text = reply.text if reply else ""
    return StateReply(
        index=state.index,
        reply=text,
        action=task.parse_action(text),
        teacher_action=state.action,
    )


def _by_length(states: Sequence[TeacherState]) -> list[list[int]]:
    """Places of the states, those of equally many messages together, shortest first.

    A state goes on where a shorter one of its episode ended, and an agent that has read that one
    in the round before need not read it again.
    """
    rounds: dict[int, list[int]] = {}
    for place, state in enumerate(states):
        rounds.setdefault(len(state.messages), []).append(place)
    return [places for _, places in sorted(rounds.items())]


def _run(
    agent: Agent, task: Task, environments: list[Environment], states: Sequence[TeacherState]
) -> tuple[list[list[tuple[Conversation, Turn]]], list[Reply | None]]:
    """Play all environments to their end, and reply in all states, in common rounds.

    Returns:
        For each environment, what the agent read and the turn it took; the reply in each state.
    """
    played: list[list[tuple[Conversation, Turn]]] = [[] for _ in environments]
    answers: list[Reply | None] = [None] * len(states)
    rounds = _by_length(states)
    # A command may run for seconds; threads keep one slow sandbox from holding up the others.
    with ThreadPoolExecutor(max_workers=len(environments)) as pool:
        while True:
            running = [place for place, item in enumerate(environments) if item.status == "running"]
            asked = rounds.pop(0) if rounds else []
            if not running and not asked:
                return played, answers
            read = {place: environments[place].messages for place in running}
            replies = agent.reply([*read.values(), *(states[place].messages for place in asked)])
            for place, reply in zip(asked, replies[len(running) :], strict=True):
                answers[place] = reply
            answered = []
            for place, reply in zip(running, replies[: len(running)], strict=True):
                if reply is None:
                    environments[place].status = CONTEXT_LIMIT
                else:
                    answered.append((place, reply))
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
