"""The catalogue: products out of WebShop's raw files, as its engine loads them.

Source: `load_products` and `generate_product_prices` in web_agent_site/engine/engine.py of WebShop.
Three files make a catalogue: the products (items_shuffle*.json), their attributes and the synthetic
instructions (items_ins_v2*.json), and the instructions that people wrote (items_human_ins*.json).
Any of them may be gzipped. Products that the engine has processed already are read too: a list, or
one JSON object a line, of {"id", "contents", "product"}.
"""

import gzip
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from gcd.core.errors import UserError

ASIN_LENGTH = 10  # longer ones are dropped
DEFAULT_PRICE = 100.0
NO_ATTRIBUTES = ["DUMMY_ATTR"]  # for a product that the attributes file does not name
RATING = "N.A."


@dataclass(frozen=True)
class Product:
    """One product. `prices` is its price in dollars, or the lowest and the highest.

    `query` is the search that it was collected with, `product_category` a path ("A › B › C").
    `options` maps an option's name to its values, all lower case. `instruction` (synthetic) and
    `human_instructions` (as they stand in the file) are what goals are made of.
    """

    asin: str
    title: str
    description: str
    bullet_points: list[str]
    category: str
    query: str
    product_category: str
    options: dict[str, list[str]]
    prices: tuple[float, ...]
    price_tag: str
    attributes: list[str]
    instruction: str | None
    instruction_attributes: list[str]
    human_instructions: list[dict[str, Any]]


def draw_price(product: Product, seed: str) -> float:
    """The product's price in dollars: where there is a range, one within it, by `seed`."""
    if len(product.prices) == 1:
        return product.prices[0]
    return random.Random(f"{seed}/price/{product.asin}").uniform(*product.prices)


def make_products(
    items: Iterable[Any],
    attributes: dict[str, Any],
    human_instructions: dict[str, Any],
    source: str,
) -> list[Product]:
    """The products, in the file's order, without those that the engine drops.

    Args:
        items: entries of items_shuffle*.json, or processed products.
        attributes: items_ins_v2*.json, by asin.
        human_instructions: items_human_ins*.json, by asin.
        source: what the entries are called in an error, e.g. the file's path.

    Raises:
        UserError: an entry is not of this schema; names it.
    """
    products: dict[str, Product] = {}
    for number, item in enumerate(items, start=1):
        entry = item.get("product", item) if isinstance(item, dict) else item
        try:
            asin = entry["asin"]
            if asin == "nan" or len(asin) > ASIN_LENGTH or asin in products:
                continue
            products[asin] = _make_product(
                entry, attributes.get(asin, {}), human_instructions.get(asin, [])
            )
        except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
            raise UserError(
                f"{source}, entry {number}: expected a product in WebShop's schema; "
                f"{type(error).__name__}: {error}. Use WebShop's own file."
            ) from error
    if not products:
        raise UserError(f"{source}: expected products, found none. Use WebShop's own file.")
    return list(products.values())


def _make_product(
    entry: dict[str, Any], about: dict[str, Any], human_instructions: list[dict[str, Any]]
) -> Product:
    """One product of a raw or processed entry, which "Title" tells apart."""
    processed = "Title" in entry
    prices = tuple(entry["pricing"]) if processed else _parse_prices(entry.get("pricing"))
    bullet_points = entry["small_description"]
    return Product(
        asin=entry["asin"],
        title=entry["name"],
        description=entry["full_description"] or "",
        bullet_points=_bullet_points(bullet_points),
        category=entry["category"],
        query=entry["query"].lower().strip(),
        product_category=entry["product_category"],
        options=entry["options"] if processed else _clean_options(entry["customization_options"]),
        prices=prices[:2] or (DEFAULT_PRICE,),
        price_tag=" to ".join(f"${price}" for price in prices[:2] or (DEFAULT_PRICE,)),
        attributes=about.get("attributes", entry.get("Attributes", NO_ATTRIBUTES)),
        instruction=about.get("instruction"),
        instruction_attributes=about.get("instruction_attributes") or [],
        human_instructions=human_instructions,
    )


def _bullet_points(value: Any) -> list[str]:
    return [text or "" for text in (value if isinstance(value, list) else [value])]


def _parse_prices(text: str | None) -> tuple[float, ...]:
    """Dollars of "$12.99" or "$3.99$10.99"; nothing of an empty text."""
    if not text:
        return ()
    parts = text.split("$")[1:]
    if not parts:
        raise ValueError(f"pricing {text!r} has no dollar sign")
    return tuple(float(Decimal(re.sub(r"[^\d.]", "", part))) for part in parts)


def _clean_options(options: dict[str, list[dict[str, Any]] | None] | str | None) -> Any:
    """Option names and values as pages show them: lower case, a slash becomes " | "."""
    if not isinstance(options, dict):
        return {}
    return {
        name.lower(): [content["value"].strip().replace("/", " | ").lower() for content in contents]
        for name, contents in options.items()
        if contents is not None
    }


def read_json(path: Path) -> Any:
    """A JSON file, or a list of one JSON value a line (.jsonl), possibly gzipped (.gz).

    Raises:
        UserError: the file is missing or does not parse.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        return json.loads(content)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Set data_path to WebShop's data folder.") from error
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}. Download the file again.") from error


def load_products(
    products: Path, attributes: Path | None, human_instructions: Path | None
) -> list[Product]:
    """The products of WebShop's raw files; raises UserError naming the file at fault."""
    tables: list[dict[str, Any]] = []
    for path in (attributes, human_instructions):
        table = {} if path is None else read_json(path)
        if not isinstance(table, dict):
            raise UserError(f"{path}: expected a mapping from asin, got a {type(table).__name__}.")
        tables.append(table)
    items = read_json(products)
    if not isinstance(items, list):
        raise UserError(f"{products}: expected a list of products, got a {type(items).__name__}.")
    return make_products(items, tables[0], tables[1], str(products))
