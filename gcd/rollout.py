"""Let an agent act: many episodes in lock-step, every turn recorded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from gcd.core.interfaces import Agent, Environment, Reply, Sample, Task
from gcd.core.records import Conversation, Episode, Message, StateReply, TeacherState, Turn

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
) -> list[Episode]:
    """One episode a sample, in the order given.

    Args:
        agent: answers all running conversations of a round in one call.
        task: the task's module, with its `settings`.
        samples: what to play.
        task_name, row: what the records are labelled with.
        live: episodes that run at the same time.
    """
    episodes: list[Episode] = []
    for start in range(0, len(samples), live):
        group = samples[start : start + live]
        with ExitStack() as stack:
            environments = [stack.enter_context(task.start(sample, settings)) for sample in group]
            turns = _run(agent, task, environments)
            for sample, environment, played in zip(group, environments, turns, strict=True):
                episodes.append(
                    Episode(
                        task=task_name,
                        row=row,
                        index=sample.index,
                        groups=sample.groups,
                        problem=sample.problem,
                        status=environment.status,
                        score=environment.score,
                        prompt_tokens=agent.prompt_tokens,
                        turns=played,
                        error=environment.error,
                    )
                )
    return episodes


def _run(agent: Agent, task: Task, environments: list[Environment]) -> list[list[Turn]]:
    """Play all environments to their end; returns the turns of each."""
    turns: list[list[Turn]] = [[] for _ in environments]
    # A command may run for seconds; threads keep one slow sandbox from holding up the others.
    with ThreadPoolExecutor(max_workers=len(environments)) as pool:
        while True:
            running = [place for place, item in enumerate(environments) if item.status == "running"]
            if not running:
                return turns
            replies = agent.reply([environments[place].messages for place in running])
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
                turns[place].append(_turn(task, reply, observation))


def _turn(task: Task, reply: Reply, observation: str | None) -> Turn:
    return Turn(
        reply=reply.text,
        context_tokens=reply.context_tokens,
        reply_tokens=reply.reply_tokens,
        complete=reply.complete,
        action=task.parse_action(reply.text),
        observation=observation,
    )


def visited_states(episodes: list[Episode], task: Task, limit: int) -> list[TeacherState]:
    """The states in which `episodes` replied, in order, the first `limit` of them."""
    states: list[TeacherState] = []
    for episode in episodes:
        messages: Conversation = [Message(role="user", content=task.first_message(episode.problem))]
        for turn in episode.turns:
            states.append(
                TeacherState(index=len(states), messages=list(messages), action=turn.action)
            )
            if turn.observation is not None:
                messages.append(Message(role="assistant", content=turn.reply))
                messages.append(Message(role="user", content=turn.observation))
    return states[:limit]


def answer_states(agent: Agent, task: Task, states: list[TeacherState]) -> list[StateReply]:
    """What `agent` does in each state that the teacher visited; states that do not fit count too.

    A conversation that does not fit the agent's context gives an empty reply without an action.
    """
    replies = agent.reply([state.messages for state in states])
    answers = []
    for state, reply in zip(states, replies, strict=True):
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
