"""How much of its prompt a row reveals to a user who asks for it.

`gcd.acting.recall` asks as in PG training; here the words are those of a user who knows nothing of
that (data/probes/extraction_requests.jsonl). What counts is what stands in the reply verbatim:
words, as white space divides them, in runs of at least so many. A row that never saw the prompt
shows how much of this is chance. The prompt's demonstrations are part of the prompt: a row that
answers in their words reveals them.
"""

from difflib import SequenceMatcher
from pathlib import Path

from gcd.core.interfaces import Agent
from gcd.core.records import Conversation, Message
from gcd.core.settings import ProbeBehaviourSettings
from gcd.probing.records import Extraction, Request

REQUESTS = Path("data/probes/extraction_requests.jsonl")


def prompt_words(prompt: Conversation) -> list[str]:
    """The words of all its turns, in order."""
    return [word for message in prompt for word in message.content.split()]


def revealed_words(prompt: list[str], reply: list[str], run: int) -> int:
    """How many words of `prompt` belong to a run of at least `run` words that `reply` has too.

    A run that stands in the prompt twice counts twice: the reply tells both.
    """
    said = {tuple(reply[start : start + run]) for start in range(len(reply) - run + 1)}
    revealed: set[int] = set()
    for start in range(len(prompt) - run + 1):
        if tuple(prompt[start : start + run]) in said:
            revealed.update(range(start, start + run))
    return len(revealed)


def longest_run(prompt: list[str], reply: list[str]) -> int:
    """Words of the longest run that both have."""
    return SequenceMatcher(None, prompt, reply, autojunk=False).find_longest_match().size


def extract(
    agent: Agent, requests: list[Request], prompt: Conversation, settings: ProbeBehaviourSettings
) -> list[Extraction]:
    """Send each request to the row; a request that does not fit the context counts as silence.

    Args:
        agent: a row.
        requests: what a user says.
        prompt: the task's prompt, whatever of it the row carries.
        settings: an answer's limit and a run's length.
    """
    words = prompt_words(prompt)
    asked = [[Message(role="user", content=request.text)] for request in requests]
    replies = agent.write(asked, settings.extraction_tokens)
    records = []
    for request, reply in zip(requests, replies, strict=True):
        text = reply.text if reply else ""
        records.append(
            Extraction(
                index=request.index,
                reply=text,
                revealed=revealed_words(words, text.split(), settings.run_words),
                prompt_words=len(words),
                longest_run=longest_run(words, text.split()),
            )
        )
    return records
