"""What the student reads and what it must write: only the targets are supervised."""

from typing import Any

import pytest

from gcd.core.records import Message, PairedOutput, PseudoConversation
from gcd.training.examples import conversation_examples, prompt_generation_examples
from gcd.training.losses import Example
from tests.tiny import ANSWER, BASH, OUTPUT, assistant, user

PAIRS = [
    PairedOutput(index=index, pseudo_input="Count.", teacher_output=BASH, student_output="Hi.")
    for index in (0, 1)
]
PROMPT = "You work in a shell. Count with wc."


def supervised_text(tokenizer: Any, example: Example) -> str:
    ids = [token for token, on in zip(example.ids, example.supervised, strict=True) if on]
    return str(tokenizer.decode(ids))


def conversation(*messages: Message) -> PseudoConversation:
    return PseudoConversation(index=0, messages=list(messages), end="committed")


def test_a_conversation_supervises_every_assistant_turn_and_nothing_else(tokenizer: Any) -> None:
    talk = conversation(user("Count."), assistant(BASH), user(OUTPUT), assistant(ANSWER))
    made = conversation_examples(tokenizer, [talk], max_length=1024)
    assert supervised_text(tokenizer, made.examples[0]) == f"{BASH}<|im_end|>{ANSWER}<|im_end|>"
    assert made.truncated == 0


def test_a_long_conversation_is_cut_and_counted(tokenizer: Any) -> None:
    talk = conversation(user("Count."), assistant(BASH))
    whole = conversation_examples(tokenizer, [talk], max_length=1024).examples[0]
    size = len(whole.ids)
    assert conversation_examples(tokenizer, [talk], max_length=size).truncated == 0
    cut = conversation_examples(tokenizer, [talk], max_length=size - 1)
    assert cut.truncated == 1
    assert cut.examples[0].ids == whole.ids[:-1]


def test_the_target_is_the_whole_prompt_and_the_reason(tokenizer: Any) -> None:
    made = prompt_generation_examples(tokenizer, PROMPT, PAIRS, {1: "It says wc."}, None)
    # The first pair has no reason, so there is one example.
    assert [supervised_text(tokenizer, example) for example in made.examples] == [
        f"Prompt:\n{PROMPT}\n\nReason:\nIt says wc.<|im_end|>"
    ]
    request = tokenizer.decode(made.examples[0].ids)
    for shown in ("Count.", "Hi.", BASH):
        assert shown in request


@pytest.mark.parametrize(("spare", "truncated"), [(0, 0), (-1, 1)])
def test_pg_max_length_counts_labels(tokenizer: Any, spare: int, truncated: int) -> None:
    whole = prompt_generation_examples(tokenizer, PROMPT, PAIRS[:1], {0: "x"}, None).examples[0]
    limit = sum(whole.supervised) + spare
    cut = prompt_generation_examples(tokenizer, PROMPT, PAIRS[:1], {0: "x"}, limit)
    assert cut.truncated == truncated
    assert sum(cut.examples[0].supervised) == limit
    assert cut.examples[0].ids == whole.ids[: len(cut.examples[0].ids)]


def test_braces_in_texts_stay_as_they_are(tokenizer: Any) -> None:
    pair = PairedOutput(index=0, pseudo_input="{x}", teacher_output="{0}", student_output="{")
    made = prompt_generation_examples(tokenizer, "{prompt}", [pair], {0: "{reason}"}, None)
    assert "Prompt:\n{prompt}\n\nReason:\n{reason}" in tokenizer.decode(made.examples[0].ids)
