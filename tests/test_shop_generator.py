"""The generated catalogue: WebShop's schema, near-duplicates, goals that can be found and won."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

import pytest

from gcd.tasks.web_shopping.catalogue import make_products
from gcd.tasks.web_shopping.generator import CATEGORIES, generate_catalogue
from gcd.tasks.web_shopping.generator_vocabulary import LINES
from gcd.tasks.web_shopping.search import SearchIndex, contents

COUNT = 300
PAGE = 10  # products on a page of results
ITEMS, ATTRIBUTES, INSTRUCTIONS = generate_catalogue("tests", COUNT)
# What near-duplicates may differ in: the parts that an attribute, an option and the price show in.
KINDS = {
    "attribute": {"name", "small_description"},
    "option": {"customization_options"},
    "price": {"pricing"},
}


def families() -> list[list[dict[str, Any]]]:
    """Items that share their description, in order: the product and its copies."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in ITEMS:
        brand = item["name"].split()[0]
        grouped.setdefault((brand, item["query"]), []).append(item)
    return list(grouped.values())


def difference(first: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in first if first[key] != other[key]} - {"asin"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed():
    code = (
        "import json; from gcd.tasks.web_shopping.generator import generate_catalogue;"
        "print(json.dumps(generate_catalogue('tests', 40)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout.decode()
        for hash_seed in ("0", "1")
    }
    assert outputs == {json.dumps(generate_catalogue("tests", 40)) + "\n"}


def test_another_seed_gives_other_products():
    others, _, _ = generate_catalogue("others", COUNT)
    assert not {item["asin"] for item in ITEMS} & {item["asin"] for item in others}
    assert len({item["name"] for item in ITEMS} & {item["name"] for item in others}) < 5


@pytest.mark.parametrize("count", [0, 1, 2, 3, 37])
def test_a_smaller_count_is_the_beginning(count):
    items, attributes, instructions = generate_catalogue("tests", count)
    assert items == ITEMS[:count]
    assert attributes == {item["asin"]: ATTRIBUTES[item["asin"]] for item in items}
    assert instructions.items() <= INSTRUCTIONS.items()


def test_items_follow_the_raw_schema():
    assert len(ITEMS) == len({item["asin"] for item in ITEMS}) == COUNT
    for item in ITEMS:
        assert set(item) == {
            *("asin", "name", "full_description", "small_description", "pricing", "images"),
            *("product_category", "category", "query", "page", "average_rating"),
            "customization_options",
        }
        assert re.fullmatch(r"B0[0-9A-Z]{8}", item["asin"])
        assert re.fullmatch(r"(\$\d+\.\d\d){1,2}", item["pricing"])
        assert item["category"] in CATEGORIES
        assert item["product_category"].count(" › ") >= 2
        assert 6 <= len(item["name"].split()) <= 14
        assert len(item["full_description"].split()) <= 28
        options = item["customization_options"]
        assert options == "" or all(
            len({content["value"] for content in contents}) == len(contents) > 1
            for contents in options.values()
        )


def test_the_loader_reads_every_product():
    products = make_products(ITEMS, ATTRIBUTES, INSTRUCTIONS, "generated")
    assert [product.asin for product in products] == [item["asin"] for item in ITEMS]
    assert {len(product.prices) for product in products} == {1, 2}
    assert all(product.prices == tuple(sorted(product.prices)) for product in products)
    assert {bool(product.options) for product in products} == {True, False}
    assert all(len(set(product.attributes)) == 3 for product in products)


def test_all_five_categories_are_filled_evenly():
    counts = Counter(item["category"] for item in ITEMS)
    assert set(counts) == {"beauty", "fashion", "garden", "electronics", "grocery"}
    assert min(counts.values()) > COUNT / 5 / 1.5


def test_copies_differ_from_their_product_in_exactly_one_thing():
    counted: Counter[str] = Counter()
    for first, *copies in families():
        for copy in copies:
            differing = difference(first, copy)
            kind = next(kind for kind, parts in KINDS.items() if differing == parts)
            counted[kind] += 1
            before, after = (set(ATTRIBUTES[one["asin"]]["attributes"]) for one in (first, copy))
            assert len(before - after) == len(after - before) == (kind == "attribute")
            if kind == "option":
                pairs = [
                    (content["value"], other["value"])
                    for name, values in first["customization_options"].items()
                    for content, other in zip(
                        values, copy["customization_options"][name], strict=True
                    )
                ]
                assert sum(one != other for one, other in pairs) == 1
    assert min(counted[kind] for kind in KINDS) > COUNT / 12


def test_a_dearer_copy_is_beyond_every_price_bound():
    for first, *copies in families():
        for copy in copies:
            if difference(first, copy) == KINDS["price"]:
                highest = float(first["pricing"].split("$")[-1])
                # The bound is one of the four multiples of ten above a price, up to 990.
                bounds = [bound for bound in range(10, 1000, 10) if bound > highest][:4]
                assert len(bounds) == 4
                assert float(copy["pricing"].split("$")[1]) > bounds[-1]
                assert copy["asin"] not in INSTRUCTIONS


def test_instructions_ask_for_what_the_rest_of_the_family_lacks():
    asked = 0
    for family in families():
        for item in family:
            others = [other for other in family if other is not item]
            for goal in INSTRUCTIONS.get(item["asin"], []):
                assert goal["asin"] == item["asin"]
                assert set(goal["instruction_attributes"]) <= set(goal["attributes"])
                named = [*goal["instruction_attributes"], *goal["instruction_options"]]
                assert all(word in goal["instruction"] for word in named)
                assert goal["instruction"] == goal["instruction"].lower()
                for option, value in zip(goal["options"], goal["instruction_options"], strict=True):
                    name, offered = option.split(": ")
                    assert offered == value
                    values = item["customization_options"][name.capitalize()]
                    assert value in [one["value"].lower() for one in values]
                for other in others:
                    assert not fulfils(other, item, goal)
                asked += 1
    assert asked >= 1.4 * COUNT


def fulfils(item: dict[str, Any], wanted: dict[str, Any], goal: dict[str, Any]) -> bool:
    """Whether an item has every attribute and option of the goal at no more than the price."""
    options = item["customization_options"] or {}
    offered = {
        f"{name.lower()}: {content['value'].lower()}"
        for name, values in options.items()
        for content in values
    }
    price, asked_price = (float(one["pricing"].split("$")[1]) for one in (item, wanted))
    return (
        set(goal["instruction_attributes"]) <= set(ATTRIBUTES[item["asin"]]["attributes"])
        and set(goal["options"]) <= offered
        and price <= asked_price + 50
    )


@pytest.mark.parametrize("count", [COUNT, 2000])
def test_instructions_find_their_product_on_the_first_page(count):
    products = make_products(*generate_catalogue("search", count), "generated")
    index = SearchIndex((product.asin, contents(product)) for product in products)
    for product in products[:COUNT]:
        brand = product.title.split()[0]
        assert product.asin in index.search(f"{brand} {product.query}", PAGE)
        for goal in product.human_instructions:
            assert product.asin in index.search(goal["instruction"], PAGE)


def ratio(first: str, second: str) -> float:
    return 100 * SequenceMatcher(None, first, second).ratio()


def token_set_ratio(first: str, second: str) -> float:
    """The measure that WebShop's judge takes attributes and options for equal by, above 85."""
    words, others = set(first.split()), set(second.split())
    common = " ".join(sorted(words & others))
    one = f"{common} {' '.join(sorted(words - others))}".strip()
    other = f"{common} {' '.join(sorted(others - words))}".strip()
    return max(ratio(common, one) if common else 0, ratio(common, other) if common else 0,
               ratio(one, other))  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.path)
def test_the_judge_can_tell_words_apart(line):
    for words in [line.attributes, *line.options.values()]:
        for first, second in combinations(words, 2):
            assert max(token_set_ratio(first, second), token_set_ratio(second, first)) <= 85
    for attribute in line.attributes:
        texts = [*line.kinds, *line.styles, *line.purposes, *line.attributes]
        assert sum(attribute in text for text in texts) == 1
    for words in line.options.values():
        assert len(words) > 3
