"""Web shopping, as WebShop plays and judges it and AgentBench v0.2 wraps it.

An agent gets an instruction and up to `max_turns` turns: it searches a shop, opens a product,
chooses options and buys. Pages are in `pages.py`, the reward in `reward.py`; protocol and parsing
follow src/server/tasks/webshop/__init__.py of AgentBench v0.2. Catalogue and goals are generated
(`generator.py`) or come out of WebShop's own files (`stores.py`).

Where we differ: prices and price bounds have seeds; WebShop draws them anew at every start.
"""

import logging
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gcd.core.errors import UserError
from gcd.core.interfaces import Environment, Wording
from gcd.core.records import (
    Action,
    Conversation,
    Message,
    Record,
    SkippedSample,
    read_records,
    write_records,
)
from gcd.core.settings import Count
from gcd.core.task_settings import SplitSettings, TaskSettings
from gcd.tasks.web_shopping import stores
from gcd.tasks.web_shopping.choosing import choose, tier
from gcd.tasks.web_shopping.goals import Goal, human_goals, shuffled, synthetic_goals
from gcd.tasks.web_shopping.pages import BUY, Page, Shop, Visit, split_action, start_page
from gcd.tasks.web_shopping.titles import load_tagger

WORDING = Wording(
    problem="shopping requests for a web shop",
    agent="an agent that shops in a web shop",
    environment="the web shop",
    environment_opening="Observation:",
)
_log = logging.getLogger(__name__)


class Settings(TaskSettings):
    """`products` says how many the generated catalogue has, `catalogue_seed` which.

    `price_seed` draws a price where a product has a range, and the price bounds of goals.
    """

    products: Count
    catalogue_seed: str
    price_seed: str


class StoredSample(Record):
    """One goal as it is written, with the name of the store whose catalogue it is for."""

    index: str
    catalogue: stores.Name
    goal: Goal


@dataclass(frozen=True)
class ShopSample:
    """One goal and the shop to meet it in, which all samples of a file share."""

    index: str
    goal: Goal
    shop: Shop

    @property
    def problem(self) -> str:
        """The instruction."""
        return self.goal.instruction_text

    @property
    def groups(self) -> dict[str, str]:
        """Tier, and the catalogue's category as family."""
        return {"tier": tier(self.goal), "family": self.goal.category}


def write_samples(settings: Settings, out: Path) -> list[SkippedSample]:
    """Write demonstrations.jsonl, development.jsonl and test.jsonl, and their catalogues.

    Generated samples ask for different products. Real ones are WebShop's first `test.count` goals
    in its own order: those that people wrote where their file is there, else the synthetic ones.
    """
    shop = stores.write_generated(
        out, settings.catalogue_seed, settings.products, settings.price_seed
    )
    people = human_goals(shop.products.values(), shop.prices, settings.price_seed)
    made = synthetic_goals(shop.products.values(), shop.prices, settings.price_seed)
    taken: set[str] = set()
    # The test comes last, so that real test data leaves what is trained on as it is.
    names = ["demonstrations", "development", "test"]
    if settings.data == "files":
        names.remove("test")
        _write_real_samples(settings, out)
    for name in names:
        split: SplitSettings = getattr(settings, name)
        goals = [*people, *made]
        random.Random(f"{split.seed}/{name}").shuffle(goals)
        chosen = choose(shop, goals, split.count, settings.max_turns, taken)
        _write(out, name, stores.GENERATED, chosen)
    return []


def _write_real_samples(settings: Settings, out: Path) -> None:
    shop = stores.write_real(out, settings.data_path, settings.price_seed)
    products = shop.products.values()
    goals = human_goals(products, shop.prices, settings.price_seed)
    goals = goals or synthetic_goals(products, shop.prices, settings.price_seed)
    if not goals:
        raise UserError(
            f"{settings.data_path}: expected instructions for the products; add WebShop's "
            f"{stores.INSTRUCTION_FILES} or {stores.ATTRIBUTE_FILES}."
        )
    _write(out, "test", stores.FILES, shuffled(goals)[: settings.test.count])


def _write(out: Path, name: str, catalogue: stores.Name, goals: list[Goal]) -> None:
    samples = [
        StoredSample(index=f"{name}-{number:03d}", catalogue=catalogue, goal=goal)
        for number, goal in enumerate(goals)
    ]
    write_records(out / f"{name}.jsonl", samples)


def read_samples(path: Path) -> list[ShopSample]:
    """The samples, in shops that are opened once.

    Raises:
        UserError: a line is bad, or a catalogue's files are missing or have changed.
    """
    stored = read_records(path, StoredSample)
    shops = {
        name: stores.open_shop(stores.store_path(path.parent, name))
        for name in sorted({sample.catalogue for sample in stored})
    }
    return [
        ShopSample(index=sample.index, goal=sample.goal, shop=shops[sample.catalogue])
        for sample in stored
    ]


def is_problem(text: str) -> bool:
    """A request, not a piece of a page."""
    return bool(text) and "[SEP]" not in text


def _message(page: Page) -> str:
    """A page as AgentBench shows it."""
    return f"Observation:\n{page.observation}\n\nAvailable Actions:\n{page.actions}"


def first_message(problem: str) -> str:
    """The start page with the instruction."""
    return _message(start_page(problem))


def parse_action(reply: str) -> Action | None:
    """The first action after `Action:`, up to its first closing bracket; None if there is none."""
    match = re.search(r"[Aa]ction: *\n* *((search|click)\[.+?])", reply)
    if match is None:
        return None
    kind, content = split_action(match[1])
    return Action(kind=kind, content=content)


def is_final(action: Action) -> bool:
    """Buying ends the episode."""
    return action.kind == "click" and (action.content or "").lower() == BUY.lower()


class ShopEnvironment:
    """One sample being played; satisfies `interfaces.Environment`."""

    def __init__(self, sample: ShopSample, settings: Settings) -> None:
        self._sample = sample
        self._max_turns = settings.max_turns
        self._turns = 0
        tagger = load_tagger()
        self._visit = Visit(sample.shop, sample.goal, tagger, seed=sample.index)
        self.messages: Conversation = [
            Message(role="user", content=_message(self._visit.page)),
        ]
        self.status = "running"
        self.score = 0.0
        self.measures = dict.fromkeys(["reward", "r_type", "attributes", "options", "price"], 0.0)
        self.details = {"backend": "embedded", "title_tagger": tagger.name}
        self.error: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing runs that would have to end."""

    def step(self, reply: str) -> str | None:
        """Search, click or buy; returns the observation, None when the episode is over."""
        self._turns += 1
        action = parse_action(reply)
        if action is None:
            self.status = "agent validation failed"
            return None
        try:
            self._visit.step(f"{action.kind}[{action.content}]")
        except Exception as error:  # one bad sample must not end the run; it is reported
            _log.error("sample %s", self._sample.index, exc_info=error)
            self.status, self.error = "task error", f"{type(error).__name__}: {error}"
            return None
        if self._visit.reward is not None:
            self._complete()
            return None
        if self._turns == self._max_turns:
            self.status = "task limit reached"
            return None
        observation = _message(self._visit.page)
        self.messages = [
            *self.messages,
            Message(role="assistant", content=reply),
            Message(role="user", content=observation),
        ]
        return observation

    def _complete(self) -> None:
        """Something was bought. Where no option was asked, all that were asked are right."""
        reward = self._visit.reward
        assert reward is not None
        self.status = "completed"
        self.score = reward.total
        self.measures = {
            "reward": reward.total,
            "r_type": reward.kind,
            "attributes": reward.attributes,
            "options": 1.0 if reward.options is None else reward.options,
            "price": float(reward.price),
        }


def start(sample: ShopSample, settings: Settings) -> Environment:
    """The sample's environment, to be entered as a context manager."""
    return ShopEnvironment(sample, settings)
