"""Search over the catalogue that ranks as WebShop's Lucene does: BM25, in its 32-bit arithmetic.

Source: BM25Similarity and SmallFloat of Lucene, with the defaults of pyserini's LuceneSearcher;
the indexed text is that of WebShop's search_engine/convert_product_file_format.py. The index lives
in numpy arrays, 8 bytes for every distinct term of every document.
"""

from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gcd.tasks.web_shopping.catalogue import Product
from gcd.tasks.web_shopping.lucene_analysis import analyze

K1 = np.float32(0.9)
B = np.float32(0.4)
# Lucene keeps a document's length in one byte: exactly below 40, then rounded down to 4 bits.
EXACT_LENGTHS = 24
LENGTH_BITS = 4


def contents(product: Product) -> str:
    """The text that a product is found by: title, description, first bullet point, options."""
    options = ", and ".join(
        f"{name}: {', '.join(values)}" for name, values in product.options.items()
    )
    bullet_points = product.bullet_points[:1] or [""]
    return " ".join([product.title, product.description, *bullet_points, options]).lower()


def quantize_length(length: int) -> int:
    """The length that Lucene remembers: `byte4ToInt(intToByte4(length))` of its SmallFloat."""
    rest = length - EXACT_LENGTHS
    dropped_bits = max(rest.bit_length() - LENGTH_BITS, 0)
    return length if rest < 0 else EXACT_LENGTHS + (rest >> dropped_bits << dropped_bits)


class SearchIndex:
    """An index over (id, text) documents; ids are distinct. It does not keep the texts."""

    def __init__(self, documents: Iterable[tuple[str, str]]):
        ids: list[str] = []
        vocabulary: dict[str, int] = {}
        terms = array("i")
        lengths = array("i")
        for document_id, text in documents:
            analyzed = analyze(text)
            ids.append(document_id)
            lengths.append(len(analyzed))
            terms.extend([vocabulary.setdefault(term, len(vocabulary)) for term in analyzed])

        # Documents are numbered by id, so that the smaller number wins a tie.
        by_id = sorted(range(len(ids)), key=ids.__getitem__)
        numbers = np.empty(len(ids), np.int64)
        numbers[by_id] = np.arange(len(ids))
        self._ids = [ids[position] for position in by_id]
        self._vocabulary = vocabulary

        document_lengths = np.asarray(lengths, np.int64)
        # One number for a term in a document; equal ones are its occurrences there.
        postings = np.asarray(terms, np.int64) * len(ids) + np.repeat(numbers, document_lengths)
        postings, frequencies = np.unique(postings, return_counts=True)
        first_postings = np.arange(len(vocabulary) + 1) * len(ids)
        self._starts = np.searchsorted(postings, first_postings)
        self._documents = (postings % max(len(ids), 1)).astype(np.int32)
        self._frequencies = frequencies.astype(np.float32)
        # Lucene's count and average leave empty documents out.
        self._count = int(np.count_nonzero(document_lengths))
        self._inverse_norms = self._invert_norms(document_lengths[by_id])

    def _invert_norms(self, lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """1 / (k1 (1 - b + b length / average length)) of every document, in Lucene's order."""
        average = np.float32(lengths.sum() / max(self._count, 1))
        distinct, places = np.unique(lengths, return_inverse=True)
        quantized = np.array([quantize_length(length) for length in distinct.tolist()], np.float32)
        one = np.float32(1)
        inverse = one / (K1 * ((one - B) + B * quantized / max(average, one)))
        return inverse[places]

    def search(self, query: str, limit: int) -> list[str]:
        """The ids of at most `limit` documents with a term of the query, best first.

        Equal scores are ordered by id. A term that stands twice in the query counts twice.
        """
        scores = np.zeros(len(self._ids))
        for term, occurrences in Counter(analyze(query)).items():
            if term in self._vocabulary:
                self._add_scores(scores, self._vocabulary[term], occurrences)
        # Lucene sums in 64 bits and ranks by the sum in 32.
        found = np.flatnonzero(scores)
        ranked = scores[found].astype(np.float32)
        if len(found) > limit > 0:
            # Sorting all that share one frequent word would take most of the time.
            enough = np.partition(ranked, -limit)[-limit]
            found, ranked = found[ranked >= enough], ranked[ranked >= enough]
        order = np.argsort(-ranked, kind="stable")[:limit]
        return [self._ids[number] for number in found[order].tolist()]

    def _add_scores(self, scores: NDArray[np.float64], term: int, occurrences: int) -> None:
        postings = slice(self._starts[term], self._starts[term + 1])
        documents = self._documents[postings]
        with_term = len(documents)
        idf = np.float32(np.log(1 + (self._count - with_term + 0.5) / (with_term + 0.5)))
        weight = np.float32(occurrences) * idf
        one = np.float32(1)
        saturation = one + self._frequencies[postings] * self._inverse_norms[documents]
        scores[documents] += weight - weight / saturation
