"""Prompt compression: the formulas by hand, what must survive, and a classifier that learns."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gcd.compression.classifier import (
    Chunk,
    load_classifier,
)
from gcd.compression.prompt import ScoredPrompt, compress, score_prompt
from gcd.compression.selection import (
    SelectionSettings,
    Token,
    Word,
    chunk_ends,
    cut_out,
    find_words,
    select,
)
from gcd.core.errors import UserError
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import Conversation
from tests import tiny
from tests.conftest import ROOT
from tests.settings import method_settings

PLAIN = SelectionSettings(force_tokens=[], force_reserve_digit=False, drop_consecutive=False)
PROMPTS = sorted((ROOT / "data/prompts").glob("*.md"))


def one_a_word(text: str) -> int:
    """A tokenizer for which every word is one token."""
    return 1


def tokens(text: str, probabilities: list[float]) -> list[Token]:
    """The words between spaces as one sub-token each."""
    found, start = [], 0
    for piece, probability in zip(text.split(" "), probabilities, strict=True):
        found.append(Token(start, start + len(piece), probability))
        start += len(piece) + 1
    return found


def kept_text(
    text: str,
    sub_tokens: list[Token],
    percentage: int,
    settings: SelectionSettings = PLAIN,
    count: Callable[[str], int] = one_a_word,
) -> str:
    words = find_words(text, 0, len(text), sub_tokens, settings)
    return cut_out(text, words, select(text, words, percentage, settings, count))


# --- Words ------------------------------------------------------------------------------------


def test_a_word_is_the_mean_of_its_sub_tokens() -> None:
    """play|ing -> (0.2 + 0.6) / 2; a mark and what follows it are a word: /etc, not etc."""
    text = "playing ls /etc."
    spans = [(0, 4), (4, 7), (8, 10), (11, 12), (12, 15), (15, 16)]
    sub_tokens = [
        Token(*span, p) for span, p in zip(spans, [0.2, 0.6, 0.5, 1, 0, 0.9], strict=True)
    ]
    words = find_words(text, 0, len(text), sub_tokens, PLAIN)
    assert [text[word.start : word.end] for word in words] == ["playing", "ls", "/etc", "."]
    assert [word.probability for word in words] == pytest.approx([0.4, 0.5, 0.5, 0.9])


def test_a_digit_makes_its_sub_token_certain_and_not_the_whole_word() -> None:
    """B|0078 -> (0.2 + 1) / 2: the original's rule, which does not always keep such a word."""
    settings = PLAIN.model_copy(update={"force_reserve_digit": True})
    [word] = find_words("B0078", 0, 5, [Token(0, 1, 0.2), Token(1, 5, 0.1)], settings)
    assert word.probability == pytest.approx(0.6)


def test_a_line_end_that_no_token_covers_is_a_word_of_its_own() -> None:
    settings = PLAIN.model_copy(update={"force_tokens": ["\n", "."]})
    text = "one.\ntwo"
    sub_tokens = [Token(0, 3, 0.1), Token(3, 4, 0.2), Token(5, 8, 0.3)]
    words = find_words(text, 0, len(text), sub_tokens, settings)
    assert [(text[word.start : word.end], word.probability) for word in words] == [
        ("one", 0.1),
        (".", 1.0),
        ("\n", 1.0),
        ("two", 0.3),
    ]


def test_line_ends_in_a_token_that_is_white_space_are_words() -> None:
    """XLM-R reads a line end as a space: with the word after it, or as a token of its own."""
    settings = PLAIN.model_copy(update={"force_tokens": ["\n"]})
    text = "a\nb\n\n/"
    spans = [(0, 1), (1, 3), (3, 5), (5, 6)]
    words = find_words(text, 0, len(text), [Token(*span, 0.5) for span in spans], settings)
    assert [text[word.start : word.end] for word in words] == ["a", "\n", "b", "\n", "\n", "/"]
    assert chunk_ends(text, spans, 3) == [1, 4]


def test_force_tokens_inside_another_token_are_part_of_it() -> None:
    """`[SEP]` is a token of its own for some encoders; no character is in two words."""
    settings = PLAIN.model_copy(update={"force_tokens": ["[", "]"]})
    words = find_words("a [SEP] b", 0, 9, tokens("a [SEP] b", [0.1, 0.2, 0.3]), settings)
    assert [(word.start, word.end, word.probability) for word in words] == [
        (0, 1, 0.1),
        (2, 7, 0.2),
        (8, 9, 0.3),
    ]


def test_a_control_token_in_a_prompt_is_plain_text(encoder: Path) -> None:
    """Web shopping's pages are full of [SEP]."""
    classifier, _ = load_classifier(0, encoder)
    ids, spans = classifier.encode("a [SEP] b")
    assert classifier.tokenizer.sep_token_id not in ids
    assert (2, 3) in spans


def test_the_white_space_in_a_token_is_not_part_of_the_word() -> None:
    """XLM-R's tokens begin with the space before them, and a space before a mark is a token."""
    text = "go to /"
    sub_tokens = [Token(0, 2, 0.5), Token(2, 5, 0.5), Token(5, 6, 0.5), Token(6, 7, 0.5)]
    words = find_words(text, 0, len(text), sub_tokens, PLAIN)
    assert [text[word.start : word.end] for word in words] == ["go", "to", " ", "/"]


# --- Selection --------------------------------------------------------------------------------


def test_the_threshold_counts_a_word_as_often_as_it_has_tokens() -> None:
    """0.1 0.2 0.3 0.4: percentile 51 lies at 1.53 of 0 .. 3, is 0.253, and two are above it.

    With 0.4 three times it lies at 2.55 of 0 .. 5, is 0.355, and one word is above it.
    """
    text = "a b c ddd"
    sub_tokens = tokens(text, [0.1, 0.2, 0.3, 0.4])
    assert kept_text(text, sub_tokens, 50) == "c ddd"
    assert kept_text(text, sub_tokens, 50, count=lambda word: len(word.strip())) == "ddd"


def test_ties_with_the_threshold_are_dropped_but_for_certain_words() -> None:
    text = "a b c d"
    assert kept_text(text, tokens(text, [0.5, 0.5, 0.5, 0.5]), 70) == ""
    assert kept_text(text, tokens(text, [0.5, 1.0, 1.0, 1.0]), 50) == "b c d"


def test_at_most_the_asked_share_of_tokens_is_kept() -> None:
    """Distinct probabilities: the percentile is at (1.01 - rate)(n - 1), above it are fewer.

    From 100 (1 - rate) tokens on that is at most rate * n; one token less may keep one more.
    """
    for percentage in (1, 30, 50, 70, 99):
        for count in (100, 101, 137, 510):
            words = [
                Word(place, place + 1, (place * 7919 % count) / count) for place in range(count)
            ]
            kept = select("x" * count, words, percentage, PLAIN, one_a_word)
            assert percentage / 100 - 0.02 <= sum(kept) / count <= percentage / 100
    three = [Word(place, place + 1, place / 3) for place in range(3)]
    assert sum(select("xxx", three, 30, PLAIN, one_a_word)) == 1


def test_force_tokens_are_kept_even_beyond_the_rate() -> None:
    settings = PLAIN.model_copy(update={"force_tokens": ["?"]})
    text = "a? b? c? d"
    spans = [(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10)]
    sub_tokens = [Token(*span, 0.1 + place / 10) for place, span in enumerate(spans)]
    assert kept_text(text, sub_tokens, 30, settings) == "? ? ?"
    assert kept_text(text, sub_tokens, 30) == "? d"


def test_consecutive_equal_force_tokens_are_one_where_no_word_is_kept_between() -> None:
    text = "one\n\ntwo\nthree\nfour"
    once = SelectionSettings(force_tokens=["\n"], force_reserve_digit=False, drop_consecutive=True)
    every = once.model_copy(update={"drop_consecutive": False})
    sub_tokens = [Token(0, 3, 0.9), Token(5, 8, 0.1), Token(9, 14, 0.2), Token(15, 19, 0.8)]
    assert kept_text(text, sub_tokens, 40, once) == "one\nfour"
    assert kept_text(text, sub_tokens, 40, every) == "\n\n\n\n"


# --- What survives ----------------------------------------------------------------------------


def test_case_lines_and_fences_are_those_of_the_original() -> None:
    """The encoder reads no case; what is kept is cut out of the text."""
    text = "Act: bash\n\n```bash\nls  ThisFolder\n```\nSo THAT is it."
    words = [Word(*span, 1.0) for span in [(0, 3), (3, 4), (5, 9), (9, 10), (10, 11)]]
    words += [Word(place, place + 1, 1.0) for place in (11, 12, 13)]
    words += [Word(*span, 1.0) for span in [(14, 18), (18, 19), (19, 21), (23, 33), (33, 34)]]
    rest = [Word(*span, 0.0) for span in [(34, 37), (37, 38), (38, 40)]]
    last = [Word(*span, 1.0) for span in [(41, 45), (46, 48), (49, 51), (51, 52)]]
    kept = [True] * len(words) + [False] * len(rest) + [True, False, False, True]
    assert cut_out(text, words + rest + last, kept) == (
        "Act: bash\n\n```bash\nls  ThisFolder\nTHAT ."
    )


def test_nothing_between_kept_words_is_no_space() -> None:
    text = "home/anna now"
    words = [Word(0, 4, 1.0), Word(4, 5, 0.0), Word(5, 9, 1.0), Word(10, 13, 1.0)]
    assert cut_out(text, words, [True, False, True, True]) == "homeanna now"
    assert cut_out(text, words, [True, False, False, True]) == "home now"


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_rate_1_is_the_identity(encoder: Path, path: Path) -> None:
    """Byte for byte, so the row would be full_prompt's; and a lower rate keeps the turns."""
    prompt = parse_prompt(read_prompt_text(path), path.name)
    settings = method_settings("llmlingua2").selection
    scored = score_prompt(prompt, load_classifier(0, encoder)[0], 510)
    assert len(scored.chunks) > 1
    assert compress(scored, 100, settings, len) == prompt
    half = compress(scored, 50, settings, len)
    assert [message.role for message in half] == [message.role for message in prompt]
    assert all(message.content.strip() for message in half)
    assert _characters(half) < _characters(prompt)
    for before, after in zip(prompt, half, strict=True):
        letters = iter(before.content)
        assert all(letter in letters for letter in after.content if not letter.isspace())


def _characters(prompt: Conversation) -> int:
    return sum(len(message.content) for message in prompt)


def test_a_message_that_would_be_empty_keeps_its_most_probable_word() -> None:
    prompt = [tiny.system("keep these words"), tiny.user("not these")]
    text = "keep these words\n\nnot these"
    spans = [(0, 4), (5, 10), (11, 16), (18, 21), (22, 27)]
    probabilities = [0.9, 0.8, 0.7, 0.1, 0.2]
    found = [Token(*span, p) for span, p in zip(spans, probabilities, strict=True)]
    scored = ScoredPrompt(prompt, text, [Chunk(0, len(text), found)])
    texts = [message.content for message in compress(scored, 50, PLAIN, one_a_word)]
    assert texts == ["keep these", "these"]


def test_chunks_end_at_a_full_stop_or_a_line_end_if_there_is_one() -> None:
    text = "a b. c d\ne f g h i"
    spans = [
        (0, 1),
        (2, 3),
        (3, 4),
        (5, 6),
        (7, 8),
        (9, 10),
        (11, 12),
        (13, 14),
        (15, 16),
        (17, 18),
    ]
    assert chunk_ends(text, spans, 4) == [3, 5, 9, 10]
    assert chunk_ends(text, spans, 10) == [10]
    assert chunk_ends(text, spans, 9) == [5, 10]
    assert chunk_ends("", [], 4) == []


def test_a_chunk_of_a_long_text_is_read_by_itself(encoder: Path) -> None:
    """Its probabilities are those of a text that is the chunk alone."""
    classifier, _ = load_classifier(0, encoder)
    text = "Delete a file. " * 8
    first, second, *_ = classifier.score(text, 12)
    [alone] = classifier.score(text[second.start : second.end], 12)
    assert text[first.end :].lstrip().startswith("Delete")
    assert [token.probability for token in second.tokens] == pytest.approx(
        [token.probability for token in alone.tokens], abs=1e-6
    )


def test_more_tokens_than_the_encoder_reads_are_an_error(encoder: Path) -> None:
    with pytest.raises(UserError, match=r"chunk_tokens is 511.*reads 512 at once"):
        load_classifier(0, encoder)[0].score("a", 511)
