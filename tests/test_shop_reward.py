"""The reward, by values worked out by hand from WebShop's definitions."""

import importlib.util
from typing import Any

import pytest

from gcd.tasks.web_shopping.reward import (
    COLOURS,
    judge,
    normalise_colour,
    token_set_ratio,
)
from gcd.tasks.web_shopping.titles import LexicalTagger, installed_models, load_tagger
from tests.shops import goal, products


def reward(asin: str = "B000000001", price: float = 12.99, **changed: Any) -> Any:
    options = changed.pop("options", {"color": "green"})
    product = {one.asin: one for one in products()}[asin]
    return judge(goal(**changed), product, price, options, LexicalTagger())


def test_the_right_product_with_its_option_within_the_bound_is_worth_1() -> None:
    assert reward().total == 1.0
    assert reward(goal_options=["green"]).total == 1.0


@pytest.mark.parametrize(
    ("changed", "total"),
    [
        ({"options": {}}, 2 / 3),
        ({"options": {"color": "red | blue"}}, 2 / 3),
        ({"price": 20.01}, 2 / 3),
        ({"price": 20.0}, 1.0),
        ({"attributes": ["easy clean", "waterproof"]}, 3 / 4),
        ({"goal_options": {}, "options": {}}, 1.0),
        # Options that nobody asked for cost nothing.
        ({"goal_options": {}}, 1.0),
    ],
)
def test_each_part_counts_the_same(changed: dict[str, Any], total: float) -> None:
    assert reward(**changed).total == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize(
    "attribute", ["easy clean", "clean easy", "desk lamp", "bright light", "lamp for", "e of bras"]
)
def test_attributes_are_found_in_the_list_and_in_the_texts(attribute: str) -> None:
    assert reward(attributes=[attribute]).attributes == 1.0


def test_attributes_of_the_texts_are_compared_in_lower_case_only() -> None:
    assert reward(attributes=["Bright"]).attributes == 0.0


@pytest.mark.parametrize(
    ("name", "category", "query", "kind"),
    [
        ("Brass Desk Lamp", "Home › Lighting", "desk lamps", 1.0),
        # Two of three nouns are enough, whatever the category.
        ("Steel Desk Lamp", "Other", "other", 1.0),
        # One of five is not above 0.2, so that query or category must fit.
        ("Lamp One Red Blue Green Pink Gold", "Other", "other", 0.5),
        ("Lamp Red Blue Green Pink", "Other", "other", 0.5),
        ("Lamp Red Blue Green Pink", "Home › Lighting", "other", 1.0),
        ("Lamp Red Blue Green Pink", "Home › Chairs", "other", 0.5),
        ("Lamp Red Blue Green Pink", "Other", "desk lamps", 1.0),
        # One of eleven is below 0.1; repeated nouns count.
        ("Lamp" + " Chair" * 10, "Home › Lighting", "desk lamps", 0.1),
        ("Lamp" + " Chair" * 9, "Home › Lighting", "desk lamps", 1.0),
        ("Chair", "Home › Lighting", "desk lamps", 0.0),
        # A title without nouns scores 0.2, which is not above 0.2.
        ("1234", "Other", "other", 0.5),
        ("1234", "Other", "desk lamps", 1.0),
    ],
)
def test_the_kind_of_product_scales_the_reward(
    name: str, category: str, query: str, kind: float
) -> None:
    assert reward(name=name, product_category=category, query=query).kind == kind


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ("easy clean", "clean easy", 100),
        ("large", "x-large", 100),  # one set of words holds the other
        ("", "large", 0),
        ("!?", "large", 0),
        ("Décor", "dcor", 100),  # Latin-1's letters beyond ASCII are deleted
        ("赤い", "赤い", 100),  # others stay
        ("abcd", "bcde", 75),  # 2 * 3 / 8
        ("abcd x", "bcde x", 83),  # "x abcd" and "x bcde": 2 * 5 / 12
        ("red", "blue", 29),  # 2 * 1 / 7
    ],
)
def test_token_set_ratio_is_the_one_of_thefuzz(first: str, second: str, ratio: int) -> None:
    assert token_set_ratio(first, second) == ratio


def test_an_option_stands_for_its_first_colour_by_the_alphabet() -> None:
    assert normalise_colour("navy blue") == "blue"
    assert normalise_colour("charred") == "red"
    assert normalise_colour("large") == "large"
    # A pair holds a colour only where its value is that colour.
    assert normalise_colour(("color", "blue")) == "blue"
    assert normalise_colour(("color", "navy blue")) == "('color', 'navy blue')"
    assert list(COLOURS) == sorted(COLOURS)
    assert len(COLOURS) == 102


def test_the_lexical_tagger_keeps_the_words_that_name() -> None:
    nouns = LexicalTagger().nouns("Men's T-Shirt for the PS4, 2 Pack | Red and Red")
    assert nouns == ("men", "t", "shirt", "ps4", "pack", "|", "red", "red")


def test_without_a_model_titles_are_judged_by_the_lexical_rule() -> None:
    models = installed_models()
    assert load_tagger().name == (models[0] if models else "lexical")
    assert models == [] or importlib.util.find_spec("spacy") is not None
