"""From text to index terms, as Lucene's default English analysis in pyserini does it.

The chain, in Lucene's names: StandardTokenizer, EnglishPossessiveFilter, LowerCaseFilter,
StopFilter with the 33 English stop words, PorterStemFilter. Text is lower-cased first here, which
comes to the same and costs less. The stemmer is our own: Snowball's `porter` lacks the departures,
and NLTK's `PorterStemmer("MARTIN_EXTENSIONS")`, which agrees with ours on all 15,137 words of
WebShop's thousand products, loads scikit-learn first and takes 3 seconds to import.
"""

import re
from functools import lru_cache

import regex  # type: ignore[import-untyped]

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
POSSESSIVES = ("'s", "\u2019s", "\uff07s")
# Distinct words of a large catalogue whose terms are remembered: about 60 MB at most.
REMEMBERED_WORDS = 2**18
# Symbols that were Extended_Pictographic in Lucene's Unicode tables (11 to 14) and, from Unicode 16
# on, are no longer: stars, hands, chess pieces, arrows. They are terms.
OLD_PICTOGRAPHS = (
    r"\u2388\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2763-\u2767"
    r"\U0001F000-\U0001F0FF\U0001F10D-\U0001F10F\U0001F12F\U0001F16C-\U0001F171"
    r"\U0001F249-\U0001F3FA\U0001F400-\U0001F53D\U0001F546-\U0001F64F\U0001F680-\U0001F6FF"
)


def _word_pattern() -> regex.Pattern[str]:
    """The tokenizer's grammar: the words of Unicode's UAX #29, and what Lucene adds to them.

    Source: StandardTokenizerImpl.jflex of Lucene 8 and 9, without the quotes of Hebrew acronyms
    and the cut at 255 characters. Every character takes along the combining marks behind it. A
    word is runs of letters, digits or katakana joined by connectors ("_"); between two letters may
    stand one of . : ' and between two digits one of . , ; '. Besides words: emoji, sequences of
    South-East Asian letters, single Han and hiragana characters. All else separates.
    """
    marks = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
    connector = rf"(?:\p{{WB=ExtendNumLet}}{marks})"
    letter = rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{marks}"
    digit = rf"\p{{WB=Numeric}}{marks}"
    katakana = rf"\p{{WB=Katakana}}{marks}"
    in_letters = rf"[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{marks}"
    in_digits = rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}]{marks}"

    letters = rf"{letter}(?:(?:{in_letters}|{connector}*+){letter})*+"
    digits = rf"{digit}(?:(?:{in_digits}|{connector}*+){digit})*+"
    katakanas = rf"{katakana}(?:{connector}*+{katakana})*+"
    run = rf"(?:(?:{letters}|{digits})++|{katakanas})"
    word = rf"{connector}*+{run}(?:{connector}++{run})*+{connector}*+"

    # Digits, "#" and "*" are emoji in Unicode's tables only for the sake of keycaps.
    pictograph = rf"[{OLD_PICTOGRAPHS}\p{{Extended_Pictographic}}[\p{{Emoji}}--[0-9#*]]]{marks}"
    flag = rf"(?:\p{{WB=Regional_Indicator}}{marks}){{2}}"
    emoji = rf"{flag}|{pictograph}(?:(?<=\u200D){pictograph})*+|[#*]\uFE0F?\u20E3{marks}"
    others = (
        rf"[\p{{Script=Han}}\p{{Script=Hiragana}}]{marks}|(?:\p{{LB=Complex_Context}}{marks})++"
    )
    return regex.compile(f"{word}|{emoji}|{others}", regex.VERSION1)


WORD = _word_pattern()
# The same of lower-case ASCII text, in a seventh of the time. No possessive quantifiers but one, as
# nested ones match wrongly in Python 3.11.2; without that one, many underscores would take long.
ASCII_WORD = re.compile(
    r"_*+(?:[a-z]+(?:[.:'][a-z]+)*|[0-9]+(?:[.,;'][0-9]+)*|(?<=[a-z0-9])_+(?=[a-z0-9]))+_*"
)


def analyze(text: str) -> list[str]:
    """The index terms of a text, in its order; stop words are left out."""
    text = text.lower()
    words = ASCII_WORD.findall(text) if text.isascii() else WORD.findall(text)
    return [term for term in map(_term, words) if term is not None]


@lru_cache(maxsize=REMEMBERED_WORDS)
def _term(word: str) -> str | None:
    """The term that a lower-case word is indexed under, None for a stop word."""
    if word.endswith(POSSESSIVES):
        word = word[:-2]
    return None if word in STOP_WORDS else stem(word)


def stem(word: str) -> str:
    """A lower-case word's stem by Porter's algorithm, with his two departures from the paper.

    Source: M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980) 130-137, and his
    list of departures (bli -> ble, logi -> log; words of up to two characters stay).
    """
    if len(word) <= 2:
        return word
    word = _strip_plural(word)
    word = _strip_participle(word)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    word = _replace_ending(word, DOUBLE_ENDINGS)
    word = _replace_ending(word, SINGLE_ENDINGS)
    word = _strip_ending(word)
    return _strip_final(word)


# Ending -> what it becomes after a stem of positive measure. The first that fits decides.
DOUBLE_ENDINGS = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
SINGLE_ENDINGS = {
    "icate": "ic",
    "ative": "",
    "alize": "al",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
}
# Endings that go after a stem of measure above 1. The first that fits decides.
_LAST_ENDINGS = (
    "al ance ence er ic able ible ant ement ment ent sion tion ou ism ate iti ous ive ize"
)
LAST_ENDINGS = tuple(_LAST_ENDINGS.split())


def _shape(letters: str) -> str:
    """A "v" for each vowel and a "c" for each consonant; y is a vowel after a consonant."""
    shape = ""
    for letter in letters:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _measure(letters: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    return _shape(letters).count("vc")


def _ends_in_double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word).endswith("c")


def _ends_in_short_syllable(word: str) -> bool:
    """Consonant, vowel, consonant other than w, x, y: there a final e is restored or kept."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _strip_plural(word: str) -> str:
    """Step 1a."""
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _strip_participle(word: str) -> str:
    """Step 1b."""
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    if not word.endswith(("ed", "ing")):
        return word
    kept = word[:-2] if word.endswith("ed") else word[:-3]
    if "v" not in _shape(kept):
        return word
    if kept.endswith(("at", "bl", "iz")):
        return kept + "e"
    if _ends_in_double_consonant(kept):
        return kept if kept[-1] in "lsz" else kept[:-1]
    return kept + "e" if _measure(kept) == 1 and _ends_in_short_syllable(kept) else kept


def _replace_ending(word: str, endings: dict[str, str]) -> str:
    """Steps 2 and 3."""
    for ending, replacement in endings.items():
        if word.endswith(ending):
            kept = word.removesuffix(ending)
            return kept + replacement if _measure(kept) > 0 else word
    return word


def _strip_ending(word: str) -> str:
    """Step 4. Of -sion and -tion the s or t stays and counts as the stem's."""
    for ending in LAST_ENDINGS:
        if word.endswith(ending):
            kept = word.removesuffix("ion" if ending in {"sion", "tion"} else ending)
            return kept if _measure(kept) > 1 else word
    return word


def _strip_final(word: str) -> str:
    """Step 5: a final e, and one of two final l."""
    measure = _measure(word)
    if word.endswith("e") and (
        measure > 1 or (measure == 1 and not _ends_in_short_syllable(word[:-1]))
    ):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and measure > 1 else word
