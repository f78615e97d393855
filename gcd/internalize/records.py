"""What a row did on the held-out inputs: what it replied, and how it read the teacher's replies."""

from dataclasses import dataclass

from gcd.core.records import Record
from gcd.probing.records import AnswerReading


class Answer(Record):
    """A row's greedy reply to a held-out input; `complete` is false where it was cut."""

    index: str
    source: str
    input: str
    reply: str
    tokens: int
    complete: bool


@dataclass(frozen=True)
class Measured:
    """What a row replied, and how it reads the teacher's replies; both in the inputs' order."""

    method: str
    answers: list[Answer]
    readings: list[AnswerReading]
