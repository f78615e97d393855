"""Compress a prompt, which is a conversation, and keep it one.

The classifier reads all messages as one text, and a rate holds for the text, chunk by chunk: an
important message loses less than another. Roles and turns stay: the chat template's frames around
the messages are not compressed, and a message of which no word would be left keeps its most
probable one, since a turn needs a text.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gcd.compression.classifier import Chunk, Classifier
from gcd.compression.selection import SelectionSettings, Word, cut_out, find_words, select
from gcd.core.records import Conversation
from gcd.core.settings import Percentage

BETWEEN = "\n\n"  # between the messages, for the classifier's eyes only


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt that the classifier has read: `chunks` of its messages' text."""

    messages: Conversation
    text: str
    chunks: list[Chunk]


def score_prompt(messages: Conversation, classifier: Classifier, chunk_tokens: int) -> ScoredPrompt:
    """Read the messages of a prompt, in chunks of at most `chunk_tokens`."""
    text = BETWEEN.join(message.content for message in messages)
    return ScoredPrompt(messages, text, classifier.score(text, chunk_tokens))


def compress(
    prompt: ScoredPrompt,
    percentage: Percentage,
    settings: SelectionSettings,
    count_tokens: Callable[[str], int],
) -> Conversation:
    """The prompt with at most `percentage` of its contents' tokens; 100 changes nothing.

    Force tokens, and turns of one word, may be more than that.
    """
    words: list[Word] = []
    kept: list[bool] = []
    places = _places(prompt)
    for chunk in prompt.chunks:
        found = [
            word
            for word in find_words(prompt.text, chunk.start, chunk.end, chunk.tokens, settings)
            if any(start <= word.start and word.end <= end for start, end in places)
        ]
        kept += select(prompt.text, found, percentage, settings, count_tokens)
        words += found
    messages = []
    for message, (start, end) in zip(prompt.messages, places, strict=True):
        chosen = [
            (replace(word, start=word.start - start, end=word.end - start), keep)
            for word, keep in zip(words, kept, strict=True)
            if start <= word.start and word.end <= end
        ]
        own = [word for word, _ in chosen]
        content = cut_out(message.content, own, [keep for _, keep in chosen])
        if not content.strip():
            content = _most_probable(message.content, own)
        messages.append(message.model_copy(update={"content": content}))
    return messages


def _places(prompt: ScoredPrompt) -> list[tuple[int, int]]:
    """Characters of each message in the text."""
    places = []
    start = 0
    for message in prompt.messages:
        end = start + len(message.content)
        places.append((start, end))
        start = end + len(BETWEEN)
    return places


def _most_probable(content: str, words: list[Word]) -> str:
    """The word to keep of a message that would be empty; all of it where none is visible."""
    visible = [word for word in words if content[word.start : word.end].strip()]
    if not visible:
        return content
    best = max(visible, key=lambda word: word.probability)
    return content[best.start : best.end]
