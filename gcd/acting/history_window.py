"""AgentBench v0.2's window over a long conversation, and how to look behind it.

A worker sends an agent message 0 and the latest messages that fit into a budget of "segments"; what
is left out is counted in a notice at the end of message 0. Source: AgentBench v0.2,
src/server/task.py, `Session._calc_segments` and `Session.filter_messages`.
"""

import re
from itertools import groupby

from gcd.core.records import Conversation, Message

SEGMENTS = 3500  # a conversation has to stay below this
SEGMENT_LETTERS = 7  # a word of more letters is several segments
_NOTICE = re.compile(r"\n\n(\[NOTICE\] (\d+) messages are omitted\.)\Z")


def count_segments(text: str) -> int:
    """Pieces of at most 7 letters; any other character is one, a blank or line end none."""
    segments = 0
    for is_word, characters in groupby(text, str.isalpha):
        if is_word:
            segments += -(-len(list(characters)) // SEGMENT_LETTERS)
        else:
            segments += sum(character not in " \n" for character in characters)
    return segments


def filter_messages(messages: Conversation) -> Conversation:
    """What a worker shows of `messages`, which begin and end with a user turn.

    Message 0 always stays. Of the others, the latest stay as long as all segments together,
    message 0's included, are fewer than 3500; the first that stays is an assistant's.
    """
    segments = count_segments(messages[0].content)
    kept: Conversation = []
    for message in reversed(messages[1:]):
        segments += count_segments(message.content)
        if segments >= SEGMENTS:
            break
        kept.insert(0, message)
    if kept and kept[0].role == "user":
        kept.pop(0)
    omitted = len(messages) - 1 - len(kept)
    first = messages[0].content
    if omitted:
        first += f"\n\n[NOTICE] {omitted} messages are omitted."
    return [Message(role=messages[0].role, content=first), *kept]


def is_whole(history: Conversation) -> bool:
    """Whether a worker left nothing out of `history`."""
    return _NOTICE.search(history[0].content) is None


def without_prompt(history: Conversation, prompt_messages: int) -> Conversation:
    """What follows the benchmark's own prompt in a history that a worker sent.

    Args:
        history: as sent; messages may be missing behind message 0.
        prompt_messages: how many of the whole conversation's first messages are the prompt.

    Returns:
        Nothing of the prompt, whatever of it survived. Where messages behind the prompt were left
        out too, the notice stands for them as a user turn; so the result begins and ends with one.
    """
    notice = _NOTICE.search(history[0].content)
    omitted = int(notice[2]) if notice else 0
    if notice and omitted >= prompt_messages:
        return [Message(role="user", content=notice[1]), *history[1:]]
    return history[prompt_messages - omitted :]
