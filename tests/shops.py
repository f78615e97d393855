"""Small catalogues by hand, and a way to play in them."""

from typing import Any

from gcd.tasks.web_shopping.catalogue import Product, make_products
from gcd.tasks.web_shopping.goals import Goal
from gcd.tasks.web_shopping.pages import Shop, Visit
from gcd.tasks.web_shopping.titles import LexicalTagger


def raw(asin: str, name: str, **changed: Any) -> dict[str, Any]:
    """An entry of items_shuffle*.json."""
    return {
        "asin": asin,
        "name": name,
        "full_description": "A lamp for desks.",
        "small_description": ["Bright light ", "Made of brass"],
        "pricing": "$12.99",
        "images": ["x"],
        "product_category": "Home › Lighting › Desk Lamps",
        "category": "garden",
        "query": " Desk Lamps ",
        "page": 1,
        "average_rating": "",
        "customization_options": "",
        **changed,
    }


COLOURED = {"Color": [{"value": " Red/Blue "}, {"value": "Green", "image": "y"}], "Size": None}
LAMP = raw("B000000001", "Brass Desk Lamp", customization_options=COLOURED)
OTHER_LAMP = raw("B000000002", "Steel Desk Lamp", pricing="$3.99$10.99", small_description="")
CHAIR = raw(
    "B000000003",
    "Garden Chair",
    query="chairs",
    product_category="Garden › Chairs",
    full_description="",
)
ATTRIBUTES = {
    "B000000001": {
        "attributes": ["easy clean", "brass"],
        "instruction": "Find me easy clean desk lamps",
        "instruction_attributes": ["easy clean"],
    },
    "B000000002": {"attributes": ["steel"]},
}


def products(*items: dict[str, Any]) -> list[Product]:
    return make_products(items or (LAMP, OTHER_LAMP, CHAIR), ATTRIBUTES, {}, "by hand")


def shop(*items: dict[str, Any]) -> Shop:
    return Shop(products(*items), price_seed="a")


def goal(**changed: Any) -> Goal:
    """Somebody wants the brass lamp in green."""
    fields: dict[str, Any] = {
        "asin": "B000000001",
        "category": "garden",
        "query": "desk lamps",
        "name": "Brass Desk Lamp",
        "product_category": "Home › Lighting › Desk Lamps",
        "instruction_text": "i want a green desk lamp",
        "attributes": ["easy clean"],
        "price_upper": 20.0,
        "goal_options": {"color": "green"},
        "weight": 1.0,
    }
    return Goal.model_validate({**fields, **changed})


def visit(*actions: str, where: Shop | None = None, **changed: Any) -> Visit:
    """A visit of the small shop after these actions."""
    one = Visit(where or shop(), goal(**changed), LexicalTagger(), seed="a")
    for action in actions:
        one.step(action)
    return one


def act(action: str) -> str:
    """A reply in the protocol's form."""
    return f"Thought:\nI act.\n\nAction:\n{action}"
