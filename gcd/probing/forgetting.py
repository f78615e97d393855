"""Behaviour off the prompt's task: how far a row has moved from the base model.

Two measures, on requests and texts that have nothing to do with any prompt (data/probes/):

perplexity   of paragraphs of plain prose, each read as the reply to a request for one about its
             topic. Not as bare text: every row acts in the chat format, adapters are trained on
             assistant turns alone, and behind a prompt that ends in an assistant's turn a text
             without a user turn has no place in the template. The request names the topic, so
             that the text is a likely answer to it for any model; it is the same for all rows.
agreement    with the base model without a prompt, along its own greedy answers to general
             instructions. The answers are read, not written: at every position the row's most
             probable token is compared with the base model's, and its distribution by
             KL(base || row). Where two models write for themselves, one different token makes
             the rest incomparable.

The base model's answers and its last hidden states along them are recorded once. The row's own
output head turns them into the base model's distributions: no adapter here changes the head (peft's
"all-linear" leaves it out), and states are 85 times smaller than log-probabilities. So the base
model itself, read in the same way, agrees exactly: 1.0 and 0 nats.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from gcd.core.errors import UserError
from gcd.core.interfaces import Agent, ReadReply
from gcd.core.records import Conversation, Message, read_records, write_bytes, write_records
from gcd.probing.records import (
    AnswerReading,
    BaseAnswer,
    BaseText,
    GeneralText,
    Request,
    TextReading,
)

TEXT_REQUEST = "Write a short paragraph about {topic}."
INSTRUCTIONS = Path("data/probes/general_instructions.jsonl")
TEXTS = Path("data/probes/general_text.jsonl")
FOLDER = Path("data/base_behaviour")
DIGITS = 6  # of sums of nats: their last bits may depend on the number of threads


@dataclass(frozen=True)
class BaseBehaviour:
    """What the base model does without a prompt; `states` belong to `answers`, each [n + 1, d]."""

    answers: list[BaseAnswer]
    states: list[Tensor]
    texts: list[BaseText]


def ask(text: str) -> Conversation:
    """A conversation of one user turn."""
    return [Message(role="user", content=text)]


def read_texts(agent: Agent, texts: list[GeneralText]) -> list[BaseText]:
    """Nats of each text under the agent, summed over its tokens."""
    requests = [ask(TEXT_REQUEST.format(topic=text.topic)) for text in texts]
    read = agent.read_replies(requests, [text.text for text in texts])
    return [
        BaseText(index=text.index, tokens=len(one.ids), nats=_nats(agent, one))
        for text, one in zip(texts, read, strict=True)
    ]


def _nats(agent: Agent, read: ReadReply) -> float:
    chosen = agent.log_probabilities(read.states[:-1])[range(len(read.ids)), read.ids]
    return round(-float(chosen.double().sum()), DIGITS)


def record_base(
    agent: Agent, instructions: list[Request], texts: list[GeneralText], tokens: int
) -> BaseBehaviour:
    """Let the base model answer, in at most `tokens` tokens, and read.

    An empty answer counts as any other: what is compared is that the base model says nothing.

    Raises:
        UserError: an instruction does not fit the context.
    """
    requests = [ask(one.text) for one in instructions]
    answers = []
    for one, reply in zip(instructions, agent.write(requests, tokens), strict=True):
        if reply is None:
            raise UserError(f"General instruction {one.index} does not fit the model's context.")
        answers.append(BaseAnswer(index=one.index, request=one.text, answer=reply.text))
    read = agent.read_replies(requests, [one.answer for one in answers])
    return BaseBehaviour(answers, [one.states for one in read], read_texts(agent, texts))


def compare_texts(agent: Agent, texts: list[GeneralText], base: BaseBehaviour) -> list[TextReading]:
    """Nats of each text under the agent and under the base model."""
    return [
        TextReading(**own.model_dump(), base_nats=other.nats)
        for own, other in zip(read_texts(agent, texts), base.texts, strict=True)
    ]


def compare_answers(agent: Agent, base: BaseBehaviour) -> list[AnswerReading]:
    """Agreement with the base model along each of its answers."""
    requests = [ask(one.request) for one in base.answers]
    read = agent.read_replies(requests, [one.answer for one in base.answers])
    return [
        compare(
            answer.index,
            agent.log_probabilities(states),
            agent.log_probabilities(one.states),
        )
        for answer, states, one in zip(base.answers, base.states, read, strict=True)
    ]


def compare(index: int, base: Tensor, row: Tensor) -> AnswerReading:
    """Agreement of two series of log-probabilities, [n, V] each."""
    kl = (base.exp() * (base - row)).sum(dtype=torch.float64)
    return AnswerReading(
        index=index,
        positions=len(base),
        agreeing=int((base.argmax(-1) == row.argmax(-1)).sum()),
        kl=round(float(kl), DIGITS),
    )


def write_base(base: BaseBehaviour) -> None:
    """Write it into `FOLDER`."""
    states = {str(one.index): part for one, part in zip(base.answers, base.states, strict=True)}
    write_records(FOLDER / "answers.jsonl", base.answers)
    write_records(FOLDER / "texts.jsonl", base.texts)
    write_bytes(FOLDER / "states.safetensors", save(states))


def read_base() -> BaseBehaviour:
    """What `write_base` wrote; raises UserError if a file is missing or bad."""
    answers = read_records(FOLDER / "answers.jsonl", BaseAnswer)
    states = load_file(FOLDER / "states.safetensors")
    texts = read_records(FOLDER / "texts.jsonl", BaseText)
    return BaseBehaviour(answers, [states[str(one.index)] for one in answers], texts)
