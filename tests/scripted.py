"""A stand-in for the language model in unit tests of the synthesis, and what it is given."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gcd.core.interfaces import ReadReply, Reply
from gcd.core.records import Conversation, PairedOutput
from gcd.core.task_settings import SynthesisSettings
from tests.tiny import BASH

SIZES = SynthesisSettings(
    inputs=4,
    per_request=4,
    input_tokens=50,
    input_characters=40,
    reasons=9,
    max_turns=3,
    environment_tokens=30,
)


class Scripted:
    """Stands in for a TextGenerator: `answer` says what each conversation is answered with."""

    def __init__(self, answer: Callable[[Conversation, Conversation], str | None]) -> None:
        self.answer = answer
        self.calls: list[tuple[Conversation, list[Conversation], dict[str, Any]]] = []

    def generate(
        self, prompt: Conversation, conversations: list[Conversation], **options: Any
    ) -> list[Reply | None]:
        # Copies: the caller goes on writing in its own lists.
        seen = [list(conversation) for conversation in conversations]
        self.calls.append((prompt, seen, options))
        openings = options.get("openings") or [""] * len(seen)
        return [
            self._reply(opening, self.answer(prompt, conversation))
            for opening, conversation in zip(openings, seen, strict=True)
        ]

    def _reply(self, opening: str, text: str | None) -> Reply | None:
        """`…` at the end of a scripted text says that it was cut at the token limit."""
        if text is None:
            return None
        return Reply((opening + text).strip().removesuffix("…"), 0, 0, not text.endswith("…"))


class Unread:
    """The part of an `Agent` that a stand-in needs where nobody lets it read."""

    def read_replies(
        self, conversations: list[Conversation], replies: list[str]
    ) -> list[ReadReply]:
        raise AssertionError("asked to read")

    def log_probabilities(self, states: Tensor) -> Tensor:
        raise AssertionError("asked for log-probabilities")


def pair(index: int, teacher: str = BASH) -> PairedOutput:
    return PairedOutput(
        index=index, pseudo_input=f"problem {index}", teacher_output=teacher, student_output="Hi."
    )
