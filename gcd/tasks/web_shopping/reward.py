"""What a purchase is worth: WebShop's reward, in [0, 1].

Source: `get_reward` in web_agent_site/engine/goal.py, `normalize_color` in normalize.py, and
`fuzz.token_set_ratio` of thefuzz 0.19 with difflib, which the original calls.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from gcd.tasks.web_shopping.catalogue import Product
from gcd.tasks.web_shopping.goals import Goal
from gcd.tasks.web_shopping.titles import TitleTagger

MATCH_ABOVE = 85  # of token_set_ratio's 100
CATEGORY_SEPARATOR = "›"
# In the original's order: the first that an option contains stands for the option.
_COLOURS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee "
    "cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia "
    "gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender "
    "lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor "
    "mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red "
    "rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan "
    "taupe teal tiger turquoise violet walnut wheat white wine yellow"
)
COLOURS = tuple(_COLOURS.split())


@dataclass(frozen=True)
class Reward:
    """`total` and its parts.

    `kind` (r_type) scales the shares of asked `attributes` and `options` that the purchase has;
    `price` says that it is within the bound. `options` is None where none is asked.
    """

    total: float
    kind: float
    query_match: bool
    category_match: bool
    title_score: float
    attributes: float
    options: float | None
    price: bool


def judge(
    goal: Goal, product: Product, price: float, options: Mapping[str, str], tagger: TitleTagger
) -> Reward:
    """The reward for buying `product` at `price` dollars with the chosen `options`.

    Args:
        goal: has at least one attribute.
        product, price: what was bought, and for how much.
        options: option name to value, as clicked.
        tagger: finds the nouns of titles.
    """
    query_match = product.query == goal.query
    shared = _categories(product.product_category) & _categories(goal.product_category)
    category_match = len(shared) >= 2
    title_score = _title_score(product.title, goal.name, tagger)
    kind = _kind_reward(query_match or category_match, title_score)
    attributes = sum(_has_attribute(product, attribute) for attribute in goal.attributes)
    wanted = (
        list(goal.goal_options.items())
        if isinstance(goal.goal_options, dict)
        else goal.goal_options
    )
    matched = _count_options(wanted, list(options.values()))
    in_bound = price <= goal.price_upper
    parts = attributes + matched + in_bound
    return Reward(
        total=parts / (len(goal.attributes) + len(wanted) + 1) * kind,
        kind=kind,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        attributes=attributes / len(goal.attributes),
        options=matched / len(wanted) if wanted else None,
        price=in_bound,
    )


def _categories(path: str) -> set[str]:
    return {part.strip() for part in path.split(CATEGORY_SEPARATOR)}


def _title_score(bought: str, wanted: str, tagger: TitleTagger) -> float:
    """Shared nouns over all nouns of the wanted title; the latter count as often as they occur."""
    nouns = tagger.nouns(wanted)
    if not nouns:
        return 0.2
    return len(set(tagger.nouns(bought)) & set(nouns)) / len(nouns)


def _kind_reward(related: bool, title_score: float) -> float:
    """How well the kind of product fits, from its query or category and its title."""
    if title_score == 0.0:
        return 0.0
    if title_score < 0.1:
        return 0.1
    return 1.0 if related or title_score > 0.2 else 0.5


def _has_attribute(product: Product, attribute: str) -> bool:
    return (
        any(token_set_ratio(own, attribute) > MATCH_ABOVE for own in product.attributes)
        or attribute in product.title.lower()
        or attribute in " ".join(product.bullet_points).lower()
        or attribute in product.description.lower()
    )


def _count_options(wanted: list[tuple[str, str]] | list[str], chosen: list[str]) -> int:
    """How many wanted options (name and value, or value only) a chosen value matches."""
    values = [normalise_colour(value) for value in chosen]
    return sum(
        any(token_set_ratio(value, normalise_colour(option)) > MATCH_ABOVE for value in values)
        for option in wanted
    )


def normalise_colour(option: str | tuple[str, str]) -> str:
    """The first colour that the option contains, else the option.

    A pair of name and value contains a colour only if one of the two is that colour, and is
    compared as Python prints it: the original hands pairs to a function for strings.
    """
    return next((colour for colour in COLOURS if colour in option), str(option))


@lru_cache(maxsize=65536)
def token_set_ratio(first: str, second: str) -> int:
    """Similarity of two texts' sets of words, 0 to 100; 0 if either has no word."""
    words_first, words_second = _words(first), _words(second)
    if not words_first or not words_second:
        return 0
    common = " ".join(sorted(words_first & words_second))
    with_first = f"{common} {' '.join(sorted(words_first - words_second))}".strip()
    with_second = f"{common} {' '.join(sorted(words_second - words_first))}".strip()
    return max(
        _ratio(common, with_first), _ratio(common, with_second), _ratio(with_first, with_second)
    )


def _words(text: str) -> set[str]:
    """Words as thefuzz processes them: Latin-1's upper half is deleted, other non-words split."""
    kept = "".join(character for character in text if not 128 <= ord(character) < 256)
    return set(re.sub(r"\W", " ", kept).lower().split())


def _ratio(first: str, second: str) -> int:
    if first == second:
        return 100
    if not first or not second:
        return 0
    return round(100 * SequenceMatcher(None, first, second).ratio())
