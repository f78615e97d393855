"""Which words of a text are kept, given each sub-token's probability: LLMLingua-2, section 4.2.

As llmlingua 0.2.2 does it (`prompt_compressor.py`: `__merge_token_to_word`, `__compress`; a test
compares), but on character offsets. The original puts the kept sub-tokens together to a text, so
that an uncased encoder loses the case, and all of them line ends. Here what is kept is cut out of
the original text.

Two differences follow. Force tokens that the encoder's vocabulary lacks, line ends above all, are
words here; there they are new tokens without training, which the encoder reads. And words are
those of the published XLM-R rule with any encoder: `/etc` is one word, not two.
"""

import re
import string
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gcd.core.settings import Percentage, Section


class SelectionSettings(Section):
    """What is kept besides the most probable words.

    `force_tokens` are kept wherever they stand, as far as the rate leaves room for them;
    `drop_consecutive` keeps one of several equal ones with no kept word between. With
    `force_reserve_digit` a sub-token with a digit counts as certainly kept.
    """

    force_tokens: list[str]
    force_reserve_digit: bool
    drop_consecutive: bool


@dataclass(frozen=True)
class Token:
    """A sub-token: its characters text[start:end], perhaps none, and how probably it is kept."""

    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Word:
    """Characters text[start:end], and how probably they are kept.

    Without white space around it, but for a force token that is white space, and for a word that
    is nothing else: XLM-R has a token for the space before a sign.
    """

    start: int
    end: int
    probability: float


def chunk_ends(text: str, tokens: list[tuple[int, int]], longest: int) -> list[int]:
    """Where the tokens of a long text are divided: each chunk's end, the last is len(tokens).

    A chunk has at most `longest` tokens and ends with the last full stop or line end in them; where
    there is none, it has exactly `longest`. (The original's may have one more, which it then cuts
    off the encoder's input.)

    Args:
        text: the text.
        tokens: characters of each token.
        longest: tokens that the encoder reads at once.
    """
    ends: list[int] = []
    start = 0
    while len(tokens) - start > longest:
        end = start + longest
        for last in range(end - 1, start - 1, -1):
            after = text[tokens[last][1] : _without_space(text, *tokens[last + 1])[0]]
            if text[slice(*tokens[last])] == "." or "\n" in after:
                end = last + 1
                break
        ends.append(end)
        start = end
    return [*ends, len(tokens)] if tokens else []


def find_words(
    text: str, start: int, end: int, tokens: list[Token], settings: SelectionSettings
) -> list[Word]:
    """Put the sub-tokens of text[start:end] together to words.

    A word's probability is the mean of its sub-tokens'. It begins after white space, at a
    punctuation mark and at a force token, whose sub-tokens are certain.
    """
    forced = [
        found.span()
        for token in settings.force_tokens
        for found in re.compile(re.escape(token)).finditer(text, start, end)
    ]
    covered: set[tuple[int, int]] = set()
    spans: list[list[int]] = []
    parts: list[list[float]] = []
    for token in tokens:
        piece = text[token.start : token.end]
        first, last = _without_space(text, token.start, token.end)
        touched = [span for span in forced if span[0] < last and first < span[1]]
        if touched and not piece.strip():  # XLM-R's token for a line end, which is a word below
            continue
        covered |= set(touched)
        whole = [span[0] for span in touched if span[0] <= first and last <= span[1]]
        probability = 1.0 if whole else token.probability
        if settings.force_reserve_digit and re.search(r"\d", piece):
            probability = 1.0
        if _begins(text, token, spans, forced=first in whole):
            spans.append([token.start, token.end])
            parts.append([probability])
        else:
            spans[-1][1] = token.end
            parts[-1].append(probability)
    words = [
        Word(*_without_space(text, *span), sum(part) / len(part))
        for span, part in zip(spans, parts, strict=True)
    ]
    words += [Word(*span, 1.0) for span in forced if span not in covered]
    return sorted(words, key=lambda word: (word.start, word.end))


def _begins(text: str, token: Token, spans: list[list[int]], *, forced: bool) -> bool:
    """Whether a word begins with `token`; `spans` are the words before it."""
    piece = text[token.start : token.end].strip()
    # As a substring, as the original has it: a token of several signs counts where they stand side
    # by side in Python's list of them.
    if not spans or forced or (piece and piece in string.punctuation):
        return True
    if not text[slice(*spans[-1])].strip():  # XLM-R's token for the space before a word
        return False
    return text[token.start : token.start + 1].isspace() or text[token.start - 1].isspace()


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def select(
    text: str,
    words: list[Word],
    percentage: Percentage,
    settings: SelectionSettings,
    count_tokens: Callable[[str], int],
) -> list[bool]:
    """Whether each word of a chunk is kept.

    A word counts as often as it has tokens, with a space before it: GPT-3.5's in the original. The
    threshold is the percentile int(100 (1 - rate) + 1) of the probabilities so counted, in the
    original's arithmetic (10 at 90 %, where floats make it 10.99). A word is kept if its own is
    above it, or if both are 1: words as probable as the threshold are dropped, all of them. 100 %
    keeps every word.

    Args:
        text: what the words are of.
        words: those of one chunk.
        percentage: of the tokens, how many are kept at most. Force tokens may be more.
        settings: see there.
        count_tokens: tokens of a text, under the tokenizer of the model that will read it.
    """
    if percentage == 100 or not words:
        return [True] * len(words)
    reduced = 1 - percentage / 100
    probabilities = [word.probability for word in words]
    if settings.drop_consecutive:
        ordinary = float(np.percentile(probabilities, int(100 * reduced)))
        probabilities = _without_repetitions(text, words, probabilities, ordinary, settings)
    counts = [
        count_tokens(text[_with_space(text, word, before) : word.end])
        for word, before in zip(words, [None, *words], strict=False)
    ]
    threshold = float(np.percentile(np.repeat(probabilities, counts), int(100 * reduced + 1)))
    kept = []
    last = None
    for word, probability in zip(words, probabilities, strict=True):
        keep = probability > threshold or probability == threshold == 1.0
        piece = text[word.start : word.end]
        if keep and settings.drop_consecutive and piece == last and piece in settings.force_tokens:
            keep = False
        kept.append(keep)
        last = piece if keep else last
    return kept


def _with_space(text: str, word: Word, before: Word | None) -> int:
    """Where `word` begins, with the space before it if that is no word of its own."""
    start = word.start - 1
    follows_space = text[max(start, 0)] == " " and (before is None or before.end <= start)
    return start if start >= 0 and follows_space else word.start


def _without_repetitions(
    text: str,
    words: list[Word],
    probabilities: list[float],
    ordinary: float,
    settings: SelectionSettings,
) -> list[float]:
    """Probabilities; 0 for a force token like the last one, no word above `ordinary` between."""
    found = list(probabilities)
    between, last = False, None
    for place, word in enumerate(words):
        piece = text[word.start : word.end]
        if piece in settings.force_tokens:
            if not between and piece == last:
                found[place] = 0.0
            between, last = False, piece
        else:
            between |= probabilities[place] > ordinary
    return found


def cut_out(text: str, words: list[Word], kept: list[bool]) -> str:
    """The kept words of `text`; all of it if every word is.

    What stands between two words stays where both are kept. Where words between them are dropped,
    a space is left if there was white space, and nothing at a line end.
    """
    if all(kept):
        return text
    pieces: list[str] = []
    end, skipped = 0, False
    for word, keep in zip(words, kept, strict=True):
        piece = text[word.start : word.end]
        if not keep or (not piece.strip() and "\n" not in piece):
            skipped |= not keep
            continue
        gap = text[end : word.start]
        if skipped or not pieces:
            at_line = not pieces or pieces[-1].endswith("\n") or piece.startswith("\n")
            gap = " " if re.search(r"\s", gap) and not at_line else ""
        pieces += [gap, piece]
        end, skipped = word.end, False
    return "".join(pieces)
