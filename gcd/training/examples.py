"""From pseudo data to training examples: what the student reads and what it must write."""

import random
from dataclasses import dataclass
from typing import Any

from gcd.core.chat import render
from gcd.core.errors import UserError
from gcd.core.prompt_generation import PROMPT_GENERATION_TARGETS, request
from gcd.core.records import Conversation, Message, PairedOutput, PseudoConversation
from gcd.training.losses import Example
from gcd.training.settings import PromptGenerationSettings


@dataclass(frozen=True)
class ExampleSet:
    """Examples, and how many of them were cut at the length limit."""

    examples: list[Example]
    truncated: int


def first_exchanges(conversations: list[PseudoConversation]) -> list[PseudoConversation]:
    """Of each conversation the first user turn and the first assistant turn.

    The first assistant turn is the prompted teacher's output to the pseudo input (`role_play`), so
    these are the single-turn outputs, over the same inputs as the conversations.
    """
    return [
        conversation.model_copy(update={"messages": conversation.messages[:2]})
        for conversation in conversations
    ]


def conversation_examples(
    tokenizer: Any, conversations: list[PseudoConversation], max_length: int
) -> ExampleSet:
    """SFT examples: the conversations without the prompt, labels on the assistant turns."""
    examples, truncated = [], 0
    for conversation in conversations:
        rendered = render(tokenizer, conversation.messages, generation_header=False)
        truncated += len(rendered.ids) > max_length
        example = Example(rendered.ids[:max_length], rendered.supervised[:max_length])
        examples.append(example)
    return ExampleSet(examples, truncated)


def prompted_examples(
    tokenizer: Any,
    prompt: Conversation,
    conversations: list[PseudoConversation],
    examples: list[Example],
) -> list[Example]:
    """The same conversations behind the prompt, which is no label, with the labels of `examples`.

    An example that was cut at a length limit is cut after the same label here.
    """
    made = []
    for conversation, plain in zip(conversations, examples, strict=True):
        messages = [*prompt, *conversation.messages]
        rendered = render(tokenizer, messages, generation_header=False)
        # Up to the end of the first user turn nothing is a label, demonstrations neither.
        start = rendered.content_ends[len(prompt)]
        flags = [False] * start + rendered.supervised[start:]
        labels = [place for place, flag in enumerate(flags) if flag][: plain.label_count]
        end = 1 + max([start - 1, *labels])
        made.append(Example(rendered.ids[:end], flags[:end]))
    return made


def behind(example: Example, length: int) -> Example:
    """What follows the first `length` ids, which stand in a prefix."""
    return Example(example.ids[length:], example.supervised[length:])


def shuffle_reasons(reasons: dict[int, str], seed: int) -> dict[int, str]:
    """Each index with the reason of another one: all in a ring, in a seeded random order.

    Raises:
        UserError: fewer than two reasons.
    """
    if len(reasons) < 2:
        raise UserError(
            f"pg_reasons: shuffled needs 2 reasons or more, got {len(reasons)}. Ask for more: "
            "tasks.<task>.synthesis.reasons."
        )
    ring = sorted(reasons)
    random.Random(f"{seed}/shuffled reasons").shuffle(ring)
    return {index: reasons[other] for index, other in zip(ring, [*ring[1:], ring[0]], strict=True)}


def prompt_generation_examples(
    tokenizer: Any,
    prompt: str,
    pairs: list[PairedOutput],
    reasons: dict[int, str],
    settings: PromptGenerationSettings,
    seed: int,
) -> ExampleSet:
    """PG examples: from input and both outputs to prompt and reason (paper, section 3.3).

    Args:
        tokenizer: of the student.
        prompt: the prompt file's text.
        pairs: one example each.
        reasons: by index of the pair; pairs without a reason are left out, whatever the target.
        settings: `pg_target` is what is written, `pg_reasons` whose reason, `pg_max_length` how
            many labels of a target are kept. The published code cuts at 512, which leaves no
            reason and no end token on long prompts.
        seed: of the order in which reasons are shuffled.

    Raises:
        UserError: see `shuffle_reasons`.
    """
    explained = [pair for pair in pairs if pair.index in reasons]
    if settings.pg_reasons == "shuffled":
        reasons = shuffle_reasons({pair.index: reasons[pair.index] for pair in explained}, seed)
    form, cut = PROMPT_GENERATION_TARGETS[settings.pg_target], settings.pg_max_length
    examples, truncated = [], 0
    for pair in explained:
        target = form.format(prompt=prompt, reason=reasons[pair.index])
        messages = [*request(pair), Message(role="assistant", content=target)]
        rendered = render(tokenizer, messages, generation_header=False)
        end = len(rendered.ids)
        if cut is not None and sum(rendered.supervised) > cut:
            truncated += 1
            end = rendered.supervised.index(True) + cut
        examples.append(Example(rendered.ids[:end], rendered.supervised[:end]))
    return ExampleSet(examples, truncated)
