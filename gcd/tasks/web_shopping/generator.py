"""A seeded catalogue in WebShop's raw schema: near-duplicates, and goals that tell them apart.

Products come in families: one product, then copies that differ from it in exactly one thing, an
attribute, a value of its first option, or the price. Every instruction asks for what the others of
the family lack, so that buying a near-duplicate never earns the full reward.
"""

import random
from dataclasses import dataclass, replace
from string import capwords
from typing import Any

from gcd.tasks.web_shopping.generator_vocabulary import LINES, ProductLine

Items = list[dict[str, Any]]
Attributes = dict[str, dict[str, Any]]
Instructions = dict[str, list[dict[str, Any]]]

CATEGORIES = ("beauty", "fashion", "garden", "electronics", "grocery")
ATTRIBUTES_PER_PRODUCT = 3
VALUES_PER_OPTION = 3
INSTRUCTIONS_PER_PRODUCT = 2
OPTIONLESS_SHARE = 0.5  # of the families have no options; their goals ask for every attribute
RANGE_SHARE = 0.2  # of the families have a lowest and a highest price
RANGES = (2, 10)  # dollars between them
# A goal's price bound is at most the fourth multiple of ten above the price (WebShop's
# engine/goal.py). With a range of 10, 50 dollars on top are beyond every bound.
PRICE_DIFFERENCES = (55, 95)
ASIN_CHARACTERS = "0123456789BCDFGHJKLMNPQRSTVWXYZ"
# Brands are two invented syllables. They begin with a consonant: instructions say "a" before them.
ONSETS = [*"bdfghklmnprstv", "br", "dr", "kr", "tr"]
VOWELS = "aeiou"
CODAS = "nlrsmkxt"

# No pattern puts an article before a style or an attribute, which may begin with a vowel.
TITLES = (
    "{brand} {attribute} {style} {kind} for {purpose}",
    "{brand} {style} {kind}, {attribute}, for {purpose}",
    "{brand} {kind} for {purpose}, {style}, {attribute}",
    "{brand} {kind}, {style} and {attribute}, for {purpose}",
)
# They name the attributes that the title leaves out: search reads no bullet point but the first.
DESCRIPTIONS = (
    "{brand} makes this {style} {kind} for {purpose}. Also {attributes}.",
    "{brand} designed this {style} {kind} with {purpose} in mind. It is {attributes}.",
    "Made for {purpose}, this {style} {kind} by {brand} is {attributes}.",
    "The {kind} that {brand} is known for, now in {style}: {attributes}. Good for {purpose}.",
    "Whether for {purpose} or as a present, this {style} {kind} is {attributes}.",
)
BULLET_POINTS = (
    "{attribute} by design",
    "{attribute}, as our buyers say",
    "{attribute} for years to come",
    "{attribute}: checked by {brand} before it ships",
    "{attribute}, and so made for {purpose}",
)
REQUESTS = (
    "i need a {brand} {kind} that is {attributes}",
    "i am looking for a {brand} {kind} for {purpose} that is {attributes}",
    "find me a {brand} {style} {kind} that is {attributes}",
    "i want to buy a {brand} {kind}. it should be {attributes}",
    "please get me the {style} {kind} by {brand} that is {attributes}",
    "do you have a {brand} {kind} that is {attributes}? i would like it",
)


@dataclass(frozen=True)
class _Product:
    """What a product is; its texts follow from it.

    The title names the first attribute, and instructions ask for it. `wanted` is the place of the
    value that instructions ask for in each option. `title`, `description` and `bullet_point` are
    patterns.
    """

    line: ProductLine
    kind: str
    brand: str
    style: str
    purpose: str
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    prices: tuple[float, ...]
    wanted: int
    title: str
    description: str
    bullet_point: str

    def write(self, pattern: str, **words: str) -> str:
        """The pattern with this product's words, and those given, in their places."""
        return pattern.format(
            brand=self.brand, style=self.style, kind=self.kind, purpose=self.purpose, **words
        )

    @property
    def query(self) -> str:
        """The search that finds all of its kind: the plural."""
        return self.kind + ("es" if self.kind.endswith(("x", "sh", "ch", "ss")) else "s")


def generate_catalogue(seed: str, count: int) -> tuple[Items, Attributes, Instructions]:
    """`count` products: the contents of items_shuffle, items_ins_v2 and items_human_ins.

    The same seed gives the same catalogue, and a smaller count the beginning of it. A family's
    first product has instructions, as have the copies that differ in an attribute or an option; the
    dearer copy has none, because the first product would answer them too.
    """
    items: Items = []
    attributes: Attributes = {}
    instructions: Instructions = {}
    taken: set[tuple[str, str]] = set()
    number = 0
    while len(items) < count:
        rng = random.Random(f"{seed}/family/{number}")
        first = _first_of_family(rng, CATEGORIES[number % len(CATEGORIES)])
        while (first.brand, first.kind) in taken:
            first = replace(first, brand=_brand(rng))
        taken.add((first.brand, first.kind))
        for product, has_goals in _family(rng, first)[: count - len(items)]:
            asin = _asin(rng)
            while asin in attributes:
                asin = _asin(rng)
            items.append(_item(asin, product))
            attributes[asin] = {"attributes": list(product.attributes)}
            if has_goals:
                attributes[asin] |= _synthetic_instruction(product)
                instructions[asin] = [
                    _human_instruction(rng, asin, product, request)
                    for request in rng.sample(REQUESTS, INSTRUCTIONS_PER_PRODUCT)
                ]
        number += 1
    return items, attributes, instructions


def _asin(rng: random.Random) -> str:
    return "B0" + "".join(rng.choices(ASIN_CHARACTERS, k=8))


def _brand(rng: random.Random) -> str:
    return "".join(
        rng.choice(letters) for letters in (ONSETS, VOWELS, CODAS, ONSETS, VOWELS)
    ).capitalize()


def _first_of_family(rng: random.Random, category: str) -> _Product:
    line = rng.choice([line for line in LINES if line.category == category])
    lowest = rng.randint(*line.prices) + rng.choice([0.49, 0.95, 0.99])
    has_range = rng.random() < RANGE_SHARE
    prices = (lowest, lowest + rng.randint(*RANGES)) if has_range else (lowest,)
    return _Product(
        line=line,
        kind=rng.choice(line.kinds),
        brand=_brand(rng),
        style=rng.choice(line.styles),
        purpose=rng.choice(line.purposes),
        attributes=tuple(rng.sample(line.attributes, ATTRIBUTES_PER_PRODUCT)),
        options={}
        if rng.random() < OPTIONLESS_SHARE
        else {
            name: tuple(rng.sample(values, VALUES_PER_OPTION))
            for name, values in line.options.items()
        },
        prices=prices,
        wanted=rng.randrange(VALUES_PER_OPTION),
        title=rng.choice(TITLES),
        description=rng.choice(DESCRIPTIONS),
        bullet_point=rng.choice(BULLET_POINTS),
    )


def _family(rng: random.Random, first: _Product) -> list[tuple[_Product, bool]]:
    """The product and its near-duplicates, each with whether it has instructions."""
    family = [(first, True), (_other_attribute(rng, first), True)]
    if first.options:
        family.append((_other_option(rng, first), True))
    return [*family, (_other_price(rng, first), False)]


def _other_attribute(rng: random.Random, product: _Product) -> _Product:
    """A copy whose first attribute is another."""
    free = [one for one in product.line.attributes if one not in product.attributes]
    return replace(product, attributes=(rng.choice(free), *product.attributes[1:]))


def _other_option(rng: random.Random, product: _Product) -> _Product:
    """A copy that has another value in place of the wanted one of its first option."""
    name = next(iter(product.options))
    values = list(product.options[name])
    values[product.wanted] = rng.choice(
        [value for value in product.line.options[name] if value not in values]
    )
    return replace(product, options={**product.options, name: tuple(values)})


def _other_price(rng: random.Random, product: _Product) -> _Product:
    """A copy that is dearer than any goal of the product allows."""
    difference = rng.randint(*PRICE_DIFFERENCES)
    return replace(product, prices=tuple(price + difference for price in product.prices))


def _item(asin: str, product: _Product) -> dict[str, Any]:
    """The product's entry of items_shuffle."""
    bullet_points = [
        product.write(product.bullet_point, attribute=attribute) for attribute in product.attributes
    ]
    return {
        "asin": asin,
        "name": capwords(product.write(product.title, attribute=product.attributes[0])),
        "full_description": product.write(
            product.description, attributes=" and ".join(product.attributes[1:])
        ),
        "small_description": [text[0].upper() + text[1:] for text in bullet_points],
        "pricing": "".join(f"${price:.2f}" for price in product.prices),
        "images": ["https://example.org/no-image.png"],
        "product_category": f"{product.line.path} › {capwords(product.query)}",
        "category": product.line.category,
        "query": product.query,
        "page": 1,
        "average_rating": "",
        "customization_options": {
            name.capitalize(): [{"value": capwords(value)} for value in values]
            for name, values in product.options.items()
        }
        or "",
    }


def _synthetic_instruction(product: _Product) -> dict[str, Any]:
    """What items_ins_v2 adds to the attributes of a product that has goals."""
    asked = list(product.attributes[: 2 if product.options else ATTRIBUTES_PER_PRODUCT])
    return {
        "instruction": f"Find me {', '.join(asked)} {product.query} by {product.brand}",
        "instruction_attributes": asked,
    }


def _human_instruction(
    rng: random.Random, asin: str, product: _Product, request: str
) -> dict[str, Any]:
    """An entry of items_human_ins: one or two attributes and an option, or every attribute."""
    count = rng.randint(1, 2) if product.options else ATTRIBUTES_PER_PRODUCT
    asked = list(product.attributes[:count])
    wanted = [(name, values[product.wanted]) for name, values in product.options.items()]
    wanted = wanted[: rng.randint(1, 2)]
    text = product.write(request, attributes=" and ".join(asked))
    if wanted:
        text += ", in " + " and ".join(f"{name} {value}" for name, value in wanted)
    return {
        "asin": asin,
        "instruction": text.lower(),
        "attributes": list(product.attributes),
        "options": [f"{name}: {value}" for name, value in wanted],
        "instruction_attributes": asked,
        "instruction_options": [value for _, value in wanted],
        "assignment_id": "generated",
        "worker_id": "generated",
    }
