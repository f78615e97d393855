"""The history window is AgentBench's, and a fixed prompt is stripped from what it leaves."""

import pytest

from gcd.acting.history_window import count_segments, filter_messages, is_whole, without_prompt
from gcd.core.records import Message


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
