"""Goals: what a shopper asks for, made from a catalogue as WebShop makes them.

Source: `get_human_goals` and `get_synthetic_goals` in web_agent_site/engine/goal.py, and the
shuffle in `SimServer` (web_agent_text_env.py). WebShop draws price bounds before it seeds its
generator, so they differ at every start; here they have a seed of their own.
"""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping

from gcd.core.records import Record
from gcd.tasks.web_shopping.catalogue import Product

PRICE_BOUNDS = [10.0 * step for step in range(1, 100)]
NEAREST_BOUNDS = 4  # a bound is drawn among so many above the price
NO_BOUND = 1_000_000.0
SHUFFLE_SEED = 233


class Goal(Record):
    """One goal, with the names of WebShop's goal dictionary.

    `goal_options` maps option names to values (synthetic) or lists values (human). `weight` is how
    often WebShop's random sessions draw the goal.
    """

    asin: str
    category: str
    query: str
    name: str
    product_category: str
    instruction_text: str
    attributes: list[str]
    price_upper: float
    goal_options: dict[str, str] | list[str]
    weight: float


def draw_bound(price: float, rng: random.Random) -> tuple[float, str]:
    """An upper price bound above `price` in dollars, and the words that state it.

    The larger of two of the nearest multiples of ten; no bound above 970 dollars.
    """
    bounds = [bound for bound in PRICE_BOUNDS if bound > price][:NEAREST_BOUNDS]
    if len(bounds) < 2:
        return NO_BOUND, ""
    upper = max(rng.sample(bounds, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def human_goals(products: Iterable[Product], prices: Mapping[str, float], seed: str) -> list[Goal]:
    """One goal an instruction that people wrote; those without attributes are left out."""
    goals = []
    for product in products:
        rng = random.Random(f"{seed}/bound/{product.asin}")
        for instruction in product.human_instructions:
            if not instruction["instruction_attributes"]:
                continue
            upper, words = draw_bound(prices[product.asin], rng)
            goals.append(
                _goal(
                    product,
                    instruction["instruction"].strip(".") + words,
                    instruction["instruction_attributes"],
                    upper,
                    instruction["instruction_options"],
                    weight=1.0,
                )
            )
    return goals


def synthetic_goals(
    products: Iterable[Product], prices: Mapping[str, float], seed: str
) -> list[Goal]:
    """One goal a combination of option values, for every product with an instruction."""
    goals = []
    for product in products:
        if product.instruction is None:
            continue
        rng = random.Random(f"{seed}/bound/{product.asin}")
        upper, bound = draw_bound(prices[product.asin], rng)
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            options = dict(zip(names, values, strict=True))
            listed = ", and ".join(f"{name}: {value}" for name, value in options.items())
            text = product.instruction + (f" with {listed}" if listed else "") + bound
            goals.append(
                _goal(product, text, product.instruction_attributes, upper, options, weight=0.0)
            )
    return _weighted(goals)


def _goal(
    product: Product,
    text: str,
    attributes: list[str],
    upper: float,
    options: dict[str, str] | list[str],
    weight: float,
) -> Goal:
    return Goal(
        asin=product.asin,
        category=product.category,
        query=product.query,
        name=product.title,
        product_category=product.product_category,
        instruction_text=text,
        attributes=attributes,
        price_upper=upper,
        goal_options=options,
        weight=weight,
    )


def _weighted(goals: list[Goal]) -> list[Goal]:
    """The goals, each weighted by the mean of 1 / (goals with the attribute) over its own."""
    counts = Counter(attribute for goal in goals for attribute in goal.attributes)
    return [
        goal.model_copy(
            update={
                "weight": sum(1.0 / counts[attribute] for attribute in goal.attributes)
                / len(goal.attributes)
            }
        )
        for goal in goals
    ]


def shuffled(goals: list[Goal]) -> list[Goal]:
    """In the order that gives a goal its index in WebShop and AgentBench."""
    order = list(goals)
    random.Random(SHUFFLE_SEED).shuffle(order)
    return order
