"""From pseudo data to training examples: what the student reads and what it must write."""

from dataclasses import dataclass
from typing import Any

from gcd.core.chat import render
from gcd.core.prompt_generation import PROMPT_GENERATION_TARGET, request
from gcd.core.records import Conversation, Message, PairedOutput, PseudoConversation
from gcd.training.losses import Example


@dataclass(frozen=True)
class ExampleSet:
    """Examples, and how many of them were cut at the length limit."""

    examples: list[Example]
    truncated: int


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


def prompt_generation_examples(
    tokenizer: Any,
    prompt: str,
    pairs: list[PairedOutput],
    reasons: dict[int, str],
    pg_max_length: int | None,
) -> ExampleSet:
    """PG examples: from input and both outputs to prompt and reason (paper, section 3.3).

    Args:
        tokenizer: of the student.
        prompt: the prompt file's text.
        pairs: one example each.
        reasons: by index of the pair; pairs without a reason are left out.
        pg_max_length: labels kept of a target; None keeps it whole. The published code cuts at
            512, which leaves no reason and no end token on long prompts.
    """
    examples, truncated = [], 0
    for pair in pairs:
        if pair.index not in reasons:
            continue
        target = PROMPT_GENERATION_TARGET.format(prompt=prompt, reason=reasons[pair.index])
        messages = [*request(pair), Message(role="assistant", content=target)]
        rendered = render(tokenizer, messages, generation_header=False)
        end = len(rendered.ids)
        labels = sum(rendered.supervised)
        if pg_max_length is not None and labels > pg_max_length:
            truncated += 1
            end = rendered.supervised.index(True) + pg_max_length
        examples.append(Example(rendered.ids[:end], rendered.supervised[:end]))
    return ExampleSet(examples, truncated)
