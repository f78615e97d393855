"""The shop's samples: generated ones are sound, and WebShop's own files give test samples only."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.core.task_settings import SplitSettings
from gcd.tasks import web_shopping
from gcd.tasks.web_shopping import Settings, ShopEnvironment, ShopSample
from gcd.tasks.web_shopping.choosing import EASY_ATTRIBUTES
from gcd.tasks.web_shopping.goals import Goal
from tests.settings import task_settings
from tests.shops import ATTRIBUTES, CHAIR, LAMP, OTHER_LAMP, act

# More than the few of params.yaml, so that all categories are among them.
SETTINGS: Settings = task_settings("web_shopping", test=SplitSettings(count=24, seed="a"))
SPLITS = ("demonstrations", "development", "test")
Splits = dict[str, list[ShopSample]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples")
    assert web_shopping.write_samples(SETTINGS, out) == []
    return out


@pytest.fixture(scope="module")
def splits(folder: Path) -> Splits:
    return {name: web_shopping.read_samples(folder / f"{name}.jsonl") for name in SPLITS}


def everything(splits: Splits) -> list[ShopSample]:
    return [one for name in SPLITS for one in splits[name]]


def asked_options(wanted: Goal) -> list[str]:
    options = wanted.goal_options
    return list(options.values()) if isinstance(options, dict) else options


class Solver:
    """Buys a given product, through text alone: it reads pages as an agent does."""

    def __init__(self, one: ShopSample, max_turns: int = SETTINGS.max_turns) -> None:
        settings = SETTINGS.model_copy(update={"max_turns": max_turns})
        self.environment: Any = web_shopping.start(one, settings)
        self.turns = 0

    @property
    def clickables(self) -> list[str]:
        text = self.environment.messages[-1].content
        return list(ast.literal_eval(text.split("Available Actions:\n")[1])["clickables"])

    def do(self, action: str) -> None:
        assert self.environment.status == "running", action
        self.environment.step(act(action))
        self.turns += 1

    def buy(self, words: str, asin: str, options: list[str]) -> float:
        """Search, turn pages until the product is there, choose, buy; returns the score."""
        with self.environment:
            self.do(f"search[{words}]")
            while asin.lower() not in self.clickables:
                self.do("click[next >]")
            for target in [asin.lower(), *options, "buy now"]:
                assert target in self.clickables
                self.do(f"click[{target}]")
        assert self.environment.status == "completed"
        return float(self.environment.score)


def request(wanted: Goal) -> str:
    """The instruction without its price."""
    return re.sub(r", and price lower than .*", "", wanted.instruction_text)


def test_the_gold_agent_gets_everything(splits: Splits) -> None:
    for one in everything(splits):
        words = one.goal.query if one.groups["tier"] == "easy" else request(one.goal)
        solver = Solver(one)
        assert solver.buy(words, one.goal.asin, asked_options(one.goal)) == 1.0, one.problem


def test_the_silent_agent_gets_nothing(splits: Splits) -> None:
    for one in everything(splits):
        with web_shopping.start(one, SETTINGS) as environment:
            assert environment.step("I am thinking.") is None
            assert (environment.status, environment.score) == ("agent validation failed", 0.0)


def test_a_wrong_option_always_costs_something(splits: Splits) -> None:
    tried = 0
    for one in everything(splits):
        options = one.shop.products[one.goal.asin].options
        asked = asked_options(one.goal)
        for place, value in enumerate(asked):
            values = next(values for values in options.values() if value in values)
            for other in values:
                if other != value:
                    chosen = [*asked[:place], other, *asked[place + 1 :]]
                    assert Solver(one).buy(request(one.goal), one.goal.asin, chosen) < 1.0
                    tried += 1
        if asked:
            assert Solver(one).buy(request(one.goal), one.goal.asin, []) < 1.0
    assert tried > 20


def other_products(one: ShopSample, is_wrong: Callable[[str], bool]) -> list[str]:
    """The products on the first page of results that are wrong in some way."""
    environment: ShopEnvironment = web_shopping.start(one, SETTINGS)  # type: ignore[assignment]
    environment.step(act(f"search[{request(one.goal)}]"))
    shown = re.findall(r"\bB0\w{8}\b", environment.messages[-1].content)
    return [asin for asin in shown if is_wrong(asin)]


def buy_alike(one: ShopSample, asin: str) -> float:
    """Buy a product, with the asked options wherever it has them."""
    values = [value for group in one.shop.products[asin].options.values() for value in group]
    options = [value for value in asked_options(one.goal) if value in values]
    return Solver(one).buy(request(one.goal), asin, options)


def test_a_wrong_price_always_costs_something(splits: Splits) -> None:
    tried = 0
    for one in everything(splits):
        prices, bound = one.shop.prices, one.goal.price_upper
        for asin in other_products(one, lambda asin: prices[asin] > bound):  # noqa: B023
            assert buy_alike(one, asin) < 1.0
            tried += 1
    assert tried > 20


def test_a_wrong_product_always_costs_something(splits: Splits) -> None:
    for one in everything(splits):
        others = other_products(one, lambda asin: asin != one.goal.asin)  # noqa: B023
        assert others
        for asin in others:
            assert buy_alike(one, asin) < 1.0, (one.problem, asin)


def test_splits_are_as_large_as_asked_and_share_no_product(splits: Splits) -> None:
    assert {name: len(splits[name]) for name in SPLITS} == {
        name: getattr(SETTINGS, name).count for name in SPLITS
    }
    products = [one.goal.asin for one in everything(splits)]
    assert len(set(products)) == len(products)
    assert len({one.index for one in everything(splits)}) == len(products)
    assert {one.groups["tier"] for one in everything(splits)} == {"easy", "hard"}
    assert len({one.groups["family"] for one in everything(splits)}) == 5
    assert all(web_shopping.is_problem(one.problem) for one in everything(splits))


def test_easy_goals_ask_for_little_and_no_option(splits: Splits) -> None:
    for one in everything(splits):
        if one.groups["tier"] == "easy":
            assert not one.goal.goal_options
            assert len(one.goal.attributes) <= EASY_ATTRIBUTES
        else:
            assert one.goal.goal_options or len(one.goal.attributes) > EASY_ATTRIBUTES


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_same_seed_writes_the_same_files_and_another_others(
    folder: Path, tmp_path: Path
) -> None:
    web_shopping.write_samples(SETTINGS, tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)
    other = SETTINGS.model_copy(update={"catalogue_seed": "b"})
    web_shopping.write_samples(other, tmp_path / "other")
    assert files(tmp_path / "other")["test.jsonl"] != files(folder)["test.jsonl"]


def test_too_small_a_catalogue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raise `tasks\.web_shopping\.products`"):
        web_shopping.write_samples(SETTINGS.model_copy(update={"products": 20}), tmp_path)


def test_a_changed_catalogue_is_noticed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    raw = tmp_path / "generated" / "items_shuffle.json"
    raw.write_text(raw.read_text().replace("$", "$1", 1))
    with pytest.raises(UserError, match=r"items_shuffle\.json: is not the file"):
        web_shopping.read_samples(tmp_path / "test.jsonl")
    raw.unlink()
    with pytest.raises(UserError, match=r"items_shuffle\.json: cannot be read"):
        web_shopping.read_samples(tmp_path / "test.jsonl")


# --- WebShop's own files ----------------------------------------------------------------------


def write_data(folder: Path, *, people: bool) -> Path:
    """Three products as WebShop's files have them."""
    folder.mkdir()
    (folder / "items_shuffle_1000.json").write_text(json.dumps([LAMP, OTHER_LAMP, CHAIR]))
    (folder / "items_ins_v2_1000.json").write_text(json.dumps(ATTRIBUTES))
    if people:
        said = {
            "instruction": "a chair.",
            "instruction_attributes": ["garden"],
            "instruction_options": [],
        }
        (folder / "items_human_ins.json").write_text(json.dumps({CHAIR["asin"]: [said]}))
    return folder


@pytest.mark.parametrize("people", [False, True])
def test_real_files_give_the_test_samples_only(folder: Path, tmp_path: Path, people: bool) -> None:
    data = write_data(tmp_path / "data", people=people)
    settings = SETTINGS.model_copy(update={"data": "files", "data_path": str(data)})
    web_shopping.write_samples(settings, tmp_path / "out")
    samples = web_shopping.read_samples(tmp_path / "out" / "test.jsonl")
    begin = ["a chair, "] if people else ["Find me easy clean desk lamps with color: "] * 2
    assert [one.problem[: len(text)] for one, text in zip(samples, begin, strict=True)] == begin
    assert set(samples[0].shop.products) == {LAMP["asin"], OTHER_LAMP["asin"], CHAIR["asin"]}
    # What is trained on does not depend on the benchmark.
    for name in ("demonstrations.jsonl", "development.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    # A file of the user's that changes later is noticed.
    (data / "items_ins_v2_1000.json").write_text("{}")
    with pytest.raises(UserError, match=r"items_ins_v2_1000\.json: is not the file"):
        web_shopping.read_samples(tmp_path / "out" / "test.jsonl")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "found none"),
        (["items_shuffle.json", "items_shuffle_1000.json"], "expected one file"),
    ],
)
def test_unclear_data_is_an_error(tmp_path: Path, names: list[str], message: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in names:
        (data / name).write_text(json.dumps([LAMP]))
    settings = SETTINGS.model_copy(update={"data": "files", "data_path": str(data)})
    with pytest.raises(UserError, match=message):
        web_shopping.write_samples(settings, tmp_path / "out")
