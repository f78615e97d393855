"""WebShop's text environment: what a page says, what can be clicked there, and where it leads.

Source: web_agent_site/envs/web_agent_text_env.py, engine/engine.py and the page templates of
WebShop as AgentBench v0.2 ships them. The original renders HTML and reads its text back; here a
page is its text nodes. Two traces of that way remain: an empty text has no node, and a text node of
nothing but white space is dropped where it has a line break and is shown empty elsewhere.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from gcd.tasks.web_shopping.catalogue import RATING, Product, draw_price
from gcd.tasks.web_shopping.goals import Goal
from gcd.tasks.web_shopping.reward import Reward, judge
from gcd.tasks.web_shopping.search import SearchIndex, contents
from gcd.tasks.web_shopping.titles import TitleTagger

HITS = 50
HITS_A_PAGE = 10
BACK, NEXT, PREVIOUS, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
# A page's kind is the first of these in its address.
PAGE_KINDS = ("search_results", "item_page", "item_sub_page", "done")
# What HTML's parser takes for white space.
BLANK = re.compile(r"[ \t\n\f\r]+")


class Actions(TypedDict):
    """What the agent may do, printed as AgentBench prints it."""

    has_search_bar: bool
    clickables: list[str]


@dataclass(frozen=True)
class Page:
    """One page: its text nodes, its buttons and product links, and its options.

    `address` tells the page's kind (PAGE_KINDS). `options` are pairs of option name and value.
    """

    address: str
    texts: list[str]
    buttons: list[str] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)
    has_search_bar: bool = False

    @property
    def kind(self) -> str:
        """One of PAGE_KINDS; empty for the start page."""
        return next((kind for kind in PAGE_KINDS if kind in self.address), "")

    @property
    def observation(self) -> str:
        """The text as the agent reads it."""
        shown = [text for text in self.texts if text and not _is_dropped(text)]
        return " [SEP] ".join(text.strip() for text in shown)

    @property
    def clickables(self) -> dict[str, str | None]:
        """What can be clicked, in order; for an option's value, the option's name."""
        clickables: dict[str, str | None] = {button.lower(): None for button in self.buttons}
        clickables.update({value: name.lower() for name, value in self.options})
        return clickables

    @property
    def actions(self) -> Actions:
        """What the agent may do here."""
        return Actions(has_search_bar=self.has_search_bar, clickables=list(self.clickables))


def _is_dropped(text: str) -> bool:
    return "\n" in text and BLANK.fullmatch(text) is not None


def start_page(instruction: str) -> Page:
    """Where an episode begins."""
    return Page(
        address="",
        texts=["WebShop", "Instruction:", instruction, "Search"],
        buttons=["Search"],
        has_search_bar=True,
    )


def split_action(action: str) -> tuple[str, str | None]:
    """Name and argument of "name[argument]" (engine.py, `parse_action`)."""
    match = re.match(r"(.+)\[(.+)\]", action)
    return (match[1], match[2]) if match else (action, None)


class Shop:
    """A catalogue that can be searched, with the price of every product."""

    def __init__(self, products: list[Product], price_seed: str) -> None:
        self.products = {product.asin: product for product in products}
        self.prices = {product.asin: draw_price(product, price_seed) for product in products}
        self._index = SearchIndex((product.asin, contents(product)) for product in products)

    def find(self, keywords: list[str], rng: random.Random) -> list[Product]:
        """The products for a query, best first.

        `<r>` asks for random ones, `<a> attribute`, `<c> category` and `<q> query` for all of one
        sort (`get_top_n_product_from_keywords`; the original fails at <a>).
        """
        everything = list(self.products.values())
        rest = " ".join(keywords[1:]).strip()
        match keywords[0]:
            case "<r>":
                return rng.sample(everything, min(HITS, len(everything)))
            case "<a>":
                return [product for product in everything if rest in product.attributes]
            case "<c>":
                return [product for product in everything if product.category == rest]
            case "<q>":
                return [product for product in everything if product.query == rest]
            case _:
                found = self._index.search(" ".join(keywords), HITS)
                return [self.products[asin] for asin in found]


class Visit:
    """One shopper with one goal: the current page, and what led to it.

    Args:
        shop: where.
        goal: what for.
        tagger: judges titles in the reward.
        seed: draws the products that the query `<r>` shows.

    `reward` is None until something is bought.
    """

    def __init__(self, shop: Shop, goal: Goal, tagger: TitleTagger, seed: str) -> None:
        self._shop = shop
        self._goal = goal
        self._tagger = tagger
        self._rng = random.Random(seed)
        self._keywords: list[str] = []
        self._number = 1
        self._asin = ""
        self._options: dict[str, str] = {}
        self.page = start_page(goal.instruction_text)
        self.reward: Reward | None = None

    def step(self, action: str) -> None:
        """Go where `action` leads; an action that is not possible here changes nothing."""
        name, argument = split_action(action)
        argument = (argument or "").lower()
        if name == "search" and argument:
            self._search(argument.split(" "), 1)
        elif name == "click" and argument in self.page.clickables and argument != "search":
            self._click(argument)

    def _click(self, target: str) -> None:
        """The order of the cases is the original's: an option may be called like a button."""
        kind = self.page.kind
        sub_page = next((name for name in SUB_PAGES if name.lower() == target), None)
        if target == BUY.lower():
            self._buy()
        elif target == BACK.lower():
            self._keywords, self._asin, self._options = [], "", {}
            self.page = start_page(self._goal.instruction_text)
        elif target == NEXT.lower() and kind == "search_results":
            self._search(self._keywords, self._number + 1)
        elif target == PREVIOUS.lower() and kind == "search_results":
            self._search(self._keywords, self._number - 1)
        elif target == PREVIOUS.lower() and kind == "item_page":
            self._search(self._keywords, self._number)
        elif sub_page is not None:
            self._show_sub_page(sub_page)
        else:
            self._choose(target)

    def _search(self, keywords: list[str], number: int) -> None:
        """Show a page of results; it forgets the product and its options."""
        self._keywords, self._number, self._asin, self._options = keywords, number, "", {}
        found = self._shop.find(keywords, self._rng)
        # Python's slice, as in the original: page 0 and below are empty or wrap around.
        shown = found[(number - 1) * HITS_A_PAGE : number * HITS_A_PAGE]
        controls = [PREVIOUS, NEXT] if number > 1 else [NEXT]
        texts = [BACK, f"Page {number} (Total results: {len(found)})", *controls]
        for product in shown:
            texts += [product.asin, product.title, product.price_tag]
        self.page = Page(
            address=f"search_results/{'+'.join(keywords)}",
            texts=[*self._heading(), *texts],
            buttons=[BACK, *controls, *(product.asin for product in shown)],
        )

    def _choose(self, target: str) -> None:
        """Open a product, choose an option's value, or return to the product from a sub page."""
        name = self.page.clickables[target]
        if name is not None:
            self._options[name] = target
        elif target.upper() in self._shop.products:
            self._asin = target.upper()
        self._show_item()

    def _show_item(self) -> None:
        product = self._shop.products[self._asin]
        listed: list[str] = []
        for name, values in product.options.items():
            listed += [name, *values]
        facts = [product.title, f"Price: {product.price_tag}", f"Rating: {RATING}"]
        self.page = Page(
            address=f"item_page/{'+'.join(self._keywords)}/{json.dumps(self._options)}",
            texts=[*self._heading(), BACK, PREVIOUS, *listed, *facts, *SUB_PAGES, BUY],
            buttons=[BACK, PREVIOUS, *SUB_PAGES, BUY],
            options=[(name, value) for name, values in product.options.items() for value in values],
        )

    def _show_sub_page(self, name: str) -> None:
        """Description, features, or reviews, of which the benchmark's data has none."""
        product = self._shop.products[self._asin]
        texts = {
            "Description": [product.description],
            # The template has a space before each, so that an empty one is a node.
            "Features": [f" {point}" for point in product.bullet_points],
            "Reviews": [],
        }[name]
        self.page = Page(
            address=f"item_sub_page/{'+'.join(self._keywords)}/{self._options}",
            texts=[*self._heading(), BACK, PREVIOUS, *texts],
            buttons=[BACK, PREVIOUS],
        )

    def _buy(self) -> None:
        product = self._shop.products[self._asin]
        price = self._shop.prices[self._asin]
        self.reward = judge(self._goal, product, price, self._options, self._tagger)
        self.page = Page(
            address="done", texts=_done_texts(product, self._options, self.reward.total)
        )

    def _heading(self) -> list[str]:
        return ["Instruction:", self._goal.instruction_text]


def _done_texts(product: Product, options: Mapping[str, str], reward: float) -> list[str]:
    """The last page. Its template names more facts than the text environment fills in."""
    bought = json.dumps(options, sort_keys=True)
    for character in "<>&'":  # Flask writes JSON that is safe inside HTML
        bought = bought.replace(character, f"\\u{ord(character):04x}")
    unknown = "None"
    return [
        *("Thank you for shopping with us!", "Your code:", unknown),
        "(Paste it in your MTurk interface.)",
        *("Purchased", "asin", product.asin, "options", bought, "attrs", unknown),
        *("category", unknown, "query", unknown, "product category", unknown),
        *("Target", "asin", "options", "attrs", "price upper", "instuction text"),
        *("category", "product category", "query", "Goal", unknown),
        *("Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details", unknown),
    ]
