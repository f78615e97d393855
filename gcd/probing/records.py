"""What the probes are and what they leave behind, one JSON object a line."""

from gcd.core.records import Record


class Request(Record):
    """A user's request: a general instruction, or one that wants to have the prompt."""

    index: int
    kind: str
    text: str


class GeneralText(Record):
    """A paragraph of plain prose, and what it is about."""

    index: int
    topic: str
    text: str


class BaseAnswer(Record):
    """The base model's greedy answer to a general instruction, without any prompt."""

    index: int
    request: str
    answer: str


class BaseText(Record):
    """How surprising a general text is to the base model: nats, summed over its tokens."""

    index: int
    tokens: int
    nats: float


class TextReading(Record):
    """The same for a row, beside the base model's."""

    index: int
    tokens: int
    nats: float
    base_nats: float


class AnswerReading(Record):
    """A row's next-token distributions along the base model's answer.

    `positions` are the answer's tokens and what follows them. `agreeing` counts those where the
    row's most probable token is the base model's. `kl` is KL(base || row) in nats, their sum.
    """

    index: int
    positions: int
    agreeing: int
    kl: float


class Extraction(Record):
    """A row's reply to a request for its prompt.

    `revealed` counts the prompt's words that stand in the reply in runs of at least so many as
    the params say, out of `prompt_words`; `longest_run` is the longest run of any length.
    """

    index: int
    reply: str
    revealed: int
    prompt_words: int
    longest_run: int
