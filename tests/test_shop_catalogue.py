"""Products are loaded by WebShop's rules, and goals made from them by its rules."""

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.tasks.web_shopping.catalogue import draw_price, load_products, make_products
from gcd.tasks.web_shopping.goals import (
    NO_BOUND,
    draw_bound,
    human_goals,
    shuffled,
    synthetic_goals,
)
from tests.shops import CHAIR, LAMP, OTHER_LAMP, products, raw


def test_a_raw_entry_becomes_what_pages_show() -> None:
    lamp, other, chair = products()
    # A slash is spaced, values are stripped and lower case, an option without values is none.
    assert lamp.options == {"color": ["red | blue", "green"]}
    assert (lamp.prices, lamp.price_tag, lamp.query) == ((12.99,), "$12.99", "desk lamps")
    assert (other.prices, other.price_tag) == ((3.99, 10.99), "$3.99 to $10.99")
    assert other.bullet_points == [""]
    assert lamp.attributes == ["easy clean", "brass"]
    assert chair.attributes == ["DUMMY_ATTR"]


@pytest.mark.parametrize("pricing", ["", None])
def test_a_product_without_a_price_costs_100_dollars(pricing: str | None) -> None:
    product = products(raw("B000000009", "Thing", pricing=pricing))[0]
    assert (product.prices, product.price_tag) == ((100.0,), "$100.0")


def test_thousands_and_a_third_price_are_read_as_in_the_original() -> None:
    product = products(raw("B000000009", "Thing", pricing="$1,200.50$1,300.00$9.00"))[0]
    assert product.prices == (1200.5, 1300.0)


def test_bad_and_repeated_ids_are_dropped() -> None:
    items = [LAMP, raw("nan", "x"), raw("B0000000011", "eleven"), {**CHAIR, "asin": LAMP["asin"]}]
    assert [product.title for product in products(*items)] == ["Brass Desk Lamp"]


def test_a_price_range_is_drawn_by_seed_and_product_only() -> None:
    lamp, other, _ = products()
    assert draw_price(lamp, "a") == 12.99
    assert 3.99 <= draw_price(other, "a") <= 10.99
    assert draw_price(other, "a") == draw_price(products(OTHER_LAMP)[0], "a")
    assert draw_price(other, "a") != draw_price(other, "b")


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"asin": "B000000009"}, "KeyError"),
        (raw("B000000009", "x", pricing="12.99"), "no dollar sign"),
        (raw("B000000009", "x", pricing="$"), "entry 2"),
        ("text", "entry 2"),
    ],
)
def test_an_entry_of_another_schema_is_named(item: Any, named: str) -> None:
    with pytest.raises(UserError, match=named):
        make_products([LAMP, item], {}, {}, "products.json")


def test_no_products_are_an_error() -> None:
    with pytest.raises(UserError, match="found none"):
        make_products([raw("nan", "x")], {}, {}, "products.json")


@pytest.mark.parametrize("name", ["p.json", "p.json.gz", "p.jsonl"])
def test_raw_and_processed_files_give_the_same_products(tmp_path: Path, name: str) -> None:
    lamp = products(LAMP)[0]
    processed = {
        **LAMP,
        "Title": lamp.title,
        "pricing": [12.99],
        "options": lamp.options,
        "Attributes": lamp.attributes,
    }
    entries = [{"id": lamp.asin, "contents": "text", "product": processed}]
    text = json.dumps(entries if "jsonl" not in name else entries[0])
    content = gzip.compress(text.encode()) if name.endswith("gz") else text.encode()
    (tmp_path / name).write_bytes(content)
    about = {"instruction": lamp.instruction, "instruction_attributes": ["easy clean"]}
    (tmp_path / "ins.json").write_text(json.dumps({lamp.asin: about}))
    assert load_products(tmp_path / name, tmp_path / "ins.json", None) == [lamp]


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"{", "expected JSON"), (b"{}", "a list of products"), (None, "no such")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, named: str) -> None:
    if content is not None:
        (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"p\.json: .*{named}"):
        load_products(tmp_path / "p.json", None, None)


@pytest.mark.parametrize(
    ("price", "bounds"),
    [
        (12.99, {30.0, 40.0, 50.0}),  # of 20, 30, 40, 50 the larger of two
        (10.0, {30.0, 40.0, 50.0}),  # the bound is above the price, never equal
        (970.0, {990.0}),
        (979.99, {990.0}),
    ],
)
def test_a_price_bound_is_one_of_the_nearest_tens(price: float, bounds: set[float]) -> None:
    drawn = {draw_bound(price, random.Random(seed)) for seed in range(50)}
    assert {bound for bound, _ in drawn} == bounds
    assert all(text == f", and price lower than {bound:.2f} dollars" for bound, text in drawn)


@pytest.mark.parametrize("price", [980.0, 1500.0])
def test_above_the_last_but_one_bound_there_is_none(price: float) -> None:
    assert draw_bound(price, random.Random(0)) == (NO_BOUND, "")


def test_synthetic_goals_are_all_combinations_of_options() -> None:
    options = {
        "Size": [{"value": "L"}, {"value": "M"}],
        "Color": [{"value": "Red"}, {"value": "Tan"}, {"value": "Navy"}],
    }
    lamp, _, _ = everything = products(
        {**LAMP, "customization_options": options}, OTHER_LAMP, CHAIR
    )
    goals = synthetic_goals(everything, {lamp.asin: 12.99}, "a")
    assert [one.goal_options for one in goals] == [
        {"color": color, "size": size}
        for color, size in itertools.product(["red", "tan", "navy"], ["l", "m"])
    ]
    text, _, bound = goals[0].instruction_text.partition(", and price lower than ")
    assert text == "Find me easy clean desk lamps with color: red, and size: l"
    assert bound == f"{goals[0].price_upper:.2f} dollars"
    assert len({one.price_upper for one in goals}) == 1
    # Its one attribute occurs in six goals.
    assert {one.weight for one in goals} == {1 / 6}


def test_human_goals_need_attributes_and_lose_their_full_stop() -> None:
    said = {"instruction": "a lamp.", "instruction_attributes": ["brass"]}
    instructions = [
        {**said, "instruction_options": ["green"]},
        {**said, "instruction_attributes": [], "instruction_options": []},
    ]
    made = make_products([LAMP, CHAIR], {}, {LAMP["asin"]: instructions}, "by hand")
    (only,) = human_goals(made, {LAMP["asin"]: 12.99}, "a")
    assert only.instruction_text.startswith("a lamp, and price lower than ")
    assert (only.attributes, only.goal_options, only.weight) == (["brass"], ["green"], 1.0)
    assert [only] == human_goals(made, {LAMP["asin"]: 12.99}, "a")


def test_the_order_of_goals_is_webshops() -> None:
    lamp = products(LAMP)[0]
    goals = synthetic_goals([lamp], {lamp.asin: 12.99}, "a") * 3
    numbered = [one.model_copy(update={"weight": float(place)}) for place, one in enumerate(goals)]
    random.seed(233)
    expected = list(numbered)
    random.shuffle(expected)
    assert shuffled(numbered) == expected
