"""Train an encoder as LLMLingua-2 is trained (section 3): distil, annotate, filter, train.

The published one learns from meeting transcripts. This one learns from what the task has: windows
of its prompt, its pseudo conversations and its reasons; never from test data.
"""

import logging
import math
import random
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel

from gcd.compression.annotation import (
    Annotated,
    AnnotationSettings,
    annotate,
    filter_annotated,
)
from gcd.compression.classifier import IGNORED, Classifier, Example, TrainClassifierSettings
from gcd.compression.distillation import delete_by_model, delete_by_rule
from gcd.core.errors import UserError
from gcd.core.interfaces import TextGenerator
from gcd.core.prompt import parse_prompt
from gcd.core.settings import Count, Section, Share
from gcd.data import PseudoData


class RecipeSettings(Section):
    """`annotator` deletes the words: the base model, in replies of `max_new_tokens`, or a rule.

    At most `windows` texts of `window_words` are used; `validation_share` of those left after the
    filters measures the classifier and does not train it.
    """

    annotator: Literal["model", "rule"]
    max_new_tokens: Count
    windows: Count
    window_words: Count
    validation_share: Share
    annotation: AnnotationSettings
    training: TrainClassifierSettings


class RecipeRecord(BaseModel):
    """What became of the recipe's texts, and how well the classifier learned.

    `kept_words` is the mean share of words that the labels keep; `variation` the mean variation
    rate before the filters. `validation_accuracy` is over sub-tokens of `validation` texts;
    `majority_accuracy` what always saying the more frequent label would reach there. Tokens are
    those of training.
    """

    annotator: str
    windows: int
    answered: int
    variation: float
    kept_by_filters: int
    kept_words: float
    training: int
    validation: int
    loss: float
    read_tokens: int
    supervised_tokens: int
    validation_accuracy: float
    majority_accuracy: float


def corpus(data: PseudoData) -> list[str]:
    """The task's texts: the prompt's messages, pseudo conversations' messages, and reasons."""
    prompt = [message.content for message in parse_prompt(data.prompt, "the prompt")]
    conversations = [
        "\n".join(message.content for message in conversation.messages)
        for conversation in data.conversations
    ]
    return ["\n".join(prompt), *conversations, *data.reasons.values()]


def windows(text: str, words: int) -> list[str]:
    """`text` in windows of up to `words` words, each to the last full stop or line end in it."""
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    found = []
    start = 0
    while start < len(spans):
        end = min(start + words, len(spans))
        if end < len(spans):
            for last in range(end - 1, start - 1, -1):
                space = text[spans[last][1] : spans[last + 1][0]]
                if text[spans[last][1] - 1] == "." or "\n" in space:
                    end = last + 1
                    break
        found.append(text[spans[start][0] : spans[end - 1][1]])
        start = end
    return found


def choose_windows(texts: list[str], settings: RecipeSettings, seed: int) -> list[str]:
    """Different windows of `texts`, in their order; drawn by chance where there are too many."""
    every = [one for text in texts for one in windows(text, settings.window_words)]
    found = list(dict.fromkeys(every))
    if len(found) <= settings.windows:
        return found
    drawn = random.Random(f"windows/{seed}").sample(range(len(found)), settings.windows)
    return [found[place] for place in sorted(drawn)]


def make_example(classifier: Classifier, text: Annotated, longest: int) -> Example:
    """Sub-tokens labelled as the word that they begin in; the encoder's own are not labelled."""
    ids, spans = classifier.encode(text.text)
    starts = [piece.start for piece in text.pieces]
    labels = []
    for start, end in spans[:longest]:
        first = end - len(text.text[start:end].lstrip())  # XLM-R's tokens begin with a space
        place = bisect_right(starts, first) - 1
        inside = place >= 0 and start < end and first < text.pieces[place].end
        labels.append(int(text.labels[place]) if inside else IGNORED)
    return Example(classifier.surround(ids[:longest]), [IGNORED, *labels, IGNORED])


def distil(
    texts: list[str],
    settings: RecipeSettings,
    load_generator: Callable[[], TextGenerator],
) -> list[Annotated]:
    """Have `texts` compressed, and label those for which there was an answer."""
    if settings.annotator == "rule":
        shortened: list[str | None] = [delete_by_rule(text) for text in texts]
    else:
        shortened = delete_by_model(texts, load_generator(), settings.max_new_tokens)
    annotated = [
        annotate(text, short, settings.annotation.search_words)
        for text, short in zip(texts, shortened, strict=True)
        if short is not None
    ]
    return [one for one in annotated if one.pieces]


def train_by_recipe(
    classifier: Classifier,
    texts: list[str],
    settings: RecipeSettings,
    *,
    longest: int,
    seed: int,
    load_generator: Callable[[], TextGenerator],
) -> RecipeRecord:
    """Train `classifier` on `texts`.

    Args:
        classifier: an encoder with a fresh classification layer.
        texts: of any length.
        settings: see there.
        longest: sub-tokens of an example.
        seed: of the draws and of training.
        load_generator: gives the base model; called for annotator `model` only.

    Raises:
        UserError: too few texts are left after the filters.
    """
    chosen = choose_windows(texts, settings, seed)
    annotated = distil(chosen, settings, load_generator)
    good = filter_annotated(annotated, settings.annotation)
    held_out = math.ceil(settings.validation_share * len(good))
    if not 0 < held_out < len(good):
        raise UserError(
            f"methods.llmlingua2.recipe: of {len(chosen)} windows {len(annotated)} were compressed "
            f"and {len(good)} are left after the filters: too few to train on and to validate. "
            "Synthesise more, or set annotator to rule."
        )
    random.Random(f"split/{seed}").shuffle(good)
    examples = [make_example(classifier, one, longest) for one in good]
    validation, training = examples[:held_out], examples[held_out:]
    trained = classifier.train(training, settings.training, seed)
    labels = [label for example in validation for label in example.labels if label != IGNORED]
    record = RecipeRecord(
        annotator=settings.annotator,
        windows=len(chosen),
        answered=len(annotated),
        variation=_mean([one.variation for one in annotated]),
        kept_by_filters=len(good),
        kept_words=_mean([one.kept for one in good]),
        training=len(training),
        validation=len(validation),
        loss=_mean(trained.losses[-10:]),
        read_tokens=trained.read_tokens,
        supervised_tokens=trained.supervised_tokens,
        validation_accuracy=classifier.accuracy(validation),
        majority_accuracy=max(_mean(labels), 1 - _mean(labels)),
    )
    logging.info(
        "classifier: %d of %d windows, accuracy %.3f on %d held out (always the same: %.3f)",
        record.kept_by_filters,
        record.windows,
        record.validation_accuracy,
        record.validation,
        record.majority_accuracy,
    )
    return record


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values)
