"""What the student reads and what it must write: only the targets are supervised."""

from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.core.records import Message, PairedOutput, PseudoConversation
from gcd.training.examples import (
    ExampleSet,
    conversation_examples,
    first_exchanges,
    prompt_generation_examples,
    prompted_examples,
    shuffle_reasons,
)
from gcd.training.losses import Example
from gcd.training.settings import PromptGenerationSettings
from tests.tiny import ANSWER, BASH, OUTPUT, assistant, system, user

PAIRS = [
    PairedOutput(index=index, pseudo_input="Count.", teacher_output=BASH, student_output="Hi.")
    for index in (0, 1)
]
PROMPT = "You work in a shell. Count with wc."
SETTINGS = PromptGenerationSettings(
    sft_weight=0.5,
    pg_batch_size=1,
    pg_every=1,
    pg_max_length=None,
    pg_target="prompt_and_reason",
    pg_reasons="own",
)


def generation(
    tokenizer: Any, reasons: dict[int, str], *, pairs: list[PairedOutput] = PAIRS, **changes: Any
) -> ExampleSet:
    settings = SETTINGS.model_copy(update=changes)
    return prompt_generation_examples(tokenizer, PROMPT, pairs, reasons, settings, seed=0)


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
    made = generation(tokenizer, {1: "It says wc."})
    # The first pair has no reason, so there is one example.
    assert [supervised_text(tokenizer, example) for example in made.examples] == [
        f"Prompt:\n{PROMPT}\n\nReason:\nIt says wc.<|im_end|>"
    ]
    request = tokenizer.decode(made.examples[0].ids)
    for shown in ("Count.", "Hi.", BASH):
        assert shown in request


@pytest.mark.parametrize(("spare", "truncated"), [(0, 0), (-1, 1)])
def test_pg_max_length_counts_labels(tokenizer: Any, spare: int, truncated: int) -> None:
    whole = generation(tokenizer, {0: "x"}).examples[0]
    limit = sum(whole.supervised) + spare
    cut = generation(tokenizer, {0: "x"}, pg_max_length=limit)
    assert cut.truncated == truncated
    assert sum(cut.examples[0].supervised) == limit
    assert cut.examples[0].ids == whole.ids[: len(cut.examples[0].ids)]


def test_braces_in_texts_stay_as_they_are(tokenizer: Any) -> None:
    pair = PairedOutput(index=0, pseudo_input="{x}", teacher_output="{0}", student_output="{")
    made = prompt_generation_examples(
        tokenizer, "{prompt}", [pair], {0: "{reason}"}, SETTINGS, seed=0
    )
    assert "Prompt:\n{prompt}\n\nReason:\n{reason}" in tokenizer.decode(made.examples[0].ids)


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ("prompt_and_reason", f"Prompt:\n{PROMPT}\n\nReason:\nIt says wc.<|im_end|>"),
        ("prompt", f"Prompt:\n{PROMPT}<|im_end|>"),
        ("reason", "Reason:\nIt says wc.<|im_end|>"),
    ],
)
def test_a_part_of_the_target_is_asked_for_by_the_same_request(
    tokenizer: Any, target: str, written: str
) -> None:
    [whole] = generation(tokenizer, {1: "It says wc."}).examples
    [part] = generation(tokenizer, {1: "It says wc."}, pg_target=target).examples
    assert supervised_text(tokenizer, part) == written
    asked = whole.supervised.index(True)
    assert part.ids[:asked] == whole.ids[:asked]
    assert part.supervised.index(True) == asked


def test_the_prompt_alone_is_asked_for_where_the_whole_is(tokenizer: Any) -> None:
    """The same examples in number and order: what is compared is the target alone."""
    made = generation(tokenizer, {1: "It says wc."}, pg_target="prompt")
    assert len(made.examples) == 1  # the pair without a reason stays out


def test_shuffled_reasons_are_a_derangement_by_the_seed() -> None:
    own = {index: f"reason {index}" for index in range(0, 40, 2)}
    orders = [shuffle_reasons(own, seed) for seed in range(20)]
    for other in orders:
        assert sorted(other.values()) == sorted(own.values())
        assert other.keys() == own.keys()
        assert all(other[index] != own[index] for index in own)
    assert shuffle_reasons(own, 0) == orders[0] != orders[1]
    assert shuffle_reasons({3: "a", 5: "b"}, 0) == {3: "b", 5: "a"}  # there is no other one


def test_shuffled_reasons_are_those_of_pairs_that_are_there(tokenizer: Any) -> None:
    reasons = {0: "first", 1: "second", 7: "of no pair"}
    made = generation(tokenizer, reasons, pg_reasons="shuffled", pg_target="reason")
    assert [supervised_text(tokenizer, example) for example in made.examples] == [
        "Reason:\nsecond<|im_end|>",
        "Reason:\nfirst<|im_end|>",
    ]
    with pytest.raises(UserError, match="needs 2 reasons or more, got 1"):
        generation(tokenizer, {1: "alone"}, pg_reasons="shuffled")


def test_first_exchanges_are_the_inputs_and_the_outputs(tokenizer: Any) -> None:
    long = conversation(user("Count."), assistant(BASH), user(OUTPUT), assistant(ANSWER))
    short = conversation(user("Count."), assistant(ANSWER))
    first = first_exchanges([long, short])
    assert [one.messages for one in first] == [long.messages[:2], short.messages]
    made = conversation_examples(tokenizer, first, max_length=1024)
    texts = [supervised_text(tokenizer, example) for example in made.examples]
    assert texts == [f"{BASH}<|im_end|>", f"{ANSWER}<|im_end|>"]
    prompted = prompted_examples(
        tokenizer, [system("Help."), *short.messages], [long], made.examples[:1]
    )
    assert supervised_text(tokenizer, prompted[0]) == f"{BASH}<|im_end|>"
