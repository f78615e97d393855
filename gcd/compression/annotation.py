"""Labels for the classifier: which words of a text its compression has (LLMLingua-2, section 3.2).

The compression should only delete words, but a model also changes some. So each of its words is
looked for in the text near the place of the last one found; two measures tell how far it went
wrong, and the worst texts are filtered out.
"""

import re
from dataclasses import dataclass

import numpy as np

from gcd.core.settings import Count, Percentage, Section


class AnnotationSettings(Section):
    """Words around the last match that are searched, on either side; and the filters.

    A text is dropped whose variation rate is at or above that percentile of all texts', unless it
    is 0, and then one whose alignment gap is so among the texts left.
    """

    search_words: Count
    variation_percentile: Percentage
    gap_percentile: Percentage


@dataclass(frozen=True)
class Piece:
    """A word or a punctuation mark: text[start:end]."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Annotated:
    """A text with labels.

    Attributes:
        text: the text.
        pieces: its words and marks.
        labels: whether each is in the compression.
        variation: share of the compression's pieces that are not found in the text; 0 for none.
        gap: share of the text's pieces that were found (one may be found twice), less those
            labelled: 0 where the compression only deletes.
    """

    text: str
    pieces: list[Piece]
    labels: list[bool]
    variation: float
    gap: float

    @property
    def kept(self) -> float:
        """Share of the pieces that are labelled."""
        return sum(self.labels) / len(self.labels)


def split_pieces(text: str) -> list[Piece]:
    """Words and single punctuation marks, in order."""
    return [Piece(*found.span(), found[0]) for found in re.finditer(r"\w+|[^\w\s]", text)]


def annotate(text: str, compressed: str, search_words: int) -> Annotated:
    """Label the pieces of `text` by its compression.

    From the place after the last match the search goes to either side, nearest first, forward
    before backward, `search_words` in all; the case does not count. After a match the place
    moves there, but forward by half of `search_words` at most: a far match may be a wrong one.
    """
    pieces = split_pieces(text)
    words = [piece.text.casefold() for piece in pieces]
    wanted = [piece.text.casefold() for piece in split_pieces(compressed)]
    labels = [False] * len(words)
    found = 0
    place = 0
    for word in wanted:
        for distance in range(search_words // 2):
            near = [place + distance, place - 1 - distance]
            match = next((at for at in near if 0 <= at < len(words) and words[at] == word), None)
            if match is not None:
                labels[match] = True
                found += 1
                place = min(match + 1, place + search_words // 2)
                break
    variation = 1 - found / len(wanted) if wanted else 0.0
    gap = (found - sum(labels)) / len(words)
    return Annotated(text, pieces, labels, variation, gap)


def filter_annotated(texts: list[Annotated], settings: AnnotationSettings) -> list[Annotated]:
    """The texts that were compressed well enough; see `AnnotationSettings`."""
    steady = _below([one.variation for one in texts], settings.variation_percentile)
    texts = [one for one, good in zip(texts, steady, strict=True) if good]
    aligned = _below([one.gap for one in texts], settings.gap_percentile)
    return [one for one, good in zip(texts, aligned, strict=True) if good]


def _below(values: list[float], percentile: int) -> list[bool]:
    if not values:
        return []
    limit = float(np.percentile(values, percentile))
    return [value < limit or value == 0 for value in values]
