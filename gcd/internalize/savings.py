"""What a student saves at the user's traffic, in the three caching regimes of `gcd.cost`.

A session has the user's number of turns, each with a message and a reply as long as the teacher's
are in the mean over the held-out inputs. Both carry the same turns: only the prompt differs, and an
adapter that is not merged. FLOPs are counted as in `gcd.cost`. Money counts tokens, as providers
do: a token that is read costs the input price wherever it is not in a cache, one that is written
the output price. In a cache it costs nothing here; a provider that bills cached tokens lies between
two regimes.
"""

from statistics import fmean
from typing import Any

from gcd.core.records import FULL_PROMPT, AgentRecord, Turn
from gcd.cost import REGIMES, Architecture, mean_flops
from gcd.internalize.outcome import Saving, Savings
from gcd.internalize.settings import TrafficSettings
from gcd.rows import Row


def session(turns: int, message: int, reply: int) -> list[Turn]:
    """A conversation of `turns` turns; every context holds all that came before it."""
    return [
        Turn(
            reply="",
            context_tokens=(number + 1) * message + number * reply,
            reply_tokens=reply,
            complete=True,
            continues=number > 0,
            action=None,
            observation=None,
        )
        for number in range(turns)
    ]


def tokens_read(turns: list[Turn], prompt: int, regime: str) -> int:
    """Tokens of a session that are not in a cache when they are read.

    Recompute: prompt and conversation in every turn. Session cache: the prompt and every message
    once. Prefix cache: every message once.
    """
    if regime == "recompute":
        return sum(prompt + turn.context_tokens for turn in turns)
    written = sum(turn.reply_tokens for turn in turns[:-1])
    messages = turns[-1].context_tokens - written
    return messages + (prompt if regime == "session_cache" else 0)


def count_savings(
    model: Architecture,
    rows: dict[str, Row],
    student: str,
    costs: dict[str, Any],
    traffic: TrafficSettings,
) -> Savings:
    """What `student` saves against the prompted teacher.

    Args:
        model: the base model's sizes.
        rows: those of the task that did not fail.
        student: one of them.
        costs: of the task, by row, as in costs.json.
        traffic: the user's.
    """
    teacher: AgentRecord = rows[FULL_PROMPT].agent
    own = rows[student].agent
    played = [turn for episode in rows[FULL_PROMPT].episodes for turn in episode.turns]
    message = round(fmean(turn.context_tokens for turn in played))
    reply = round(fmean(turn.reply_tokens for turn in played))
    turns = session(traffic.turns, message, reply)
    theirs, ours = (mean_flops(model, [turns], agent) for agent in (teacher, own))
    training = int(costs[student]["training"]["flops"])
    invested = int(costs[student]["data_flops"]) + training
    price = traffic.price_per_million

    def money(read: int) -> float:
        paid = read * price.input + traffic.turns * reply * price.output
        return traffic.sessions_per_day * paid / 1e6

    regimes = []
    for regime in REGIMES:
        saved = (theirs[regime] - ours[regime]) * traffic.sessions_per_day
        read = [tokens_read(turns, agent.prompt_tokens, regime) for agent in (teacher, own)]
        regimes.append(
            Saving(
                regime=regime,
                flops_teacher=theirs[regime],
                flops_student=ours[regime],
                read_teacher=read[0],
                read_student=read[1],
                money_teacher=money(read[0]),
                money_student=money(read[1]),
                days=invested / saved if saved > 0 else None,
            )
        )
    return Savings(
        sessions_per_day=traffic.sessions_per_day,
        turns=traffic.turns,
        message_tokens=message,
        reply_tokens=reply,
        prompt_tokens=teacher.prompt_tokens,
        data_flops=int(costs[student]["data_flops"]),
        training_flops=training,
        regimes=regimes,
    )
