"""Web shopping, compared with what WebShop and AgentBench's wrapper themselves answered."""

import json
from pathlib import Path
from typing import Any

import pytest

from gcd.tasks.web_shopping import parse_action
from gcd.tasks.web_shopping.catalogue import load_products
from gcd.tasks.web_shopping.goals import Goal
from gcd.tasks.web_shopping.pages import Shop, Visit
from gcd.tasks.web_shopping.reward import Reward, judge
from gcd.tasks.web_shopping.stores import ATTRIBUTE_FILES, PRODUCT_FILES
from gcd.tasks.web_shopping.titles import (
    LexicalTagger,
    SpacyTagger,
    TitleTagger,
    installed_models,
)

SMALL_MODELS = [name for name in installed_models() if "_sm" in name]  # what recorded the answers


def newest(folder: Path, pattern: str) -> Path:
    """The last file of the pattern by name, so that a folder with more data is read as well."""
    paths = sorted(folder.rglob(pattern))
    if not paths:
        pytest.skip(f"{folder} has no {pattern}")
    return paths[-1]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_web_shopping_actions(realdata: Any, tally: Any) -> None:
    results = {}
    for case in read(realdata("webshop", "oracle", "action_examples.json")):
        action = parse_action(case["raw"])
        wanted = case["parse_action"]
        results[repr(case["raw"])] = (action and [action.kind, action.content]) == wanted
    tally("web shopping: actions", results)


def rewards(realdata: Any, tagger: TitleTagger) -> dict[str, tuple[Reward, dict[str, Any]]]:
    """Of each recorded purchase: our reward, and the recorded case."""
    folder = realdata("webshop")
    products = load_products(
        newest(folder, PRODUCT_FILES[1]), newest(folder, ATTRIBUTE_FILES), None
    )
    catalogue = {product.asin: product for product in products}
    lines = realdata("webshop", "oracle", "reward_examples.jsonl").read_text(encoding="utf-8")
    answers = {}
    for number, line in enumerate(lines.strip().split("\n"), start=1):
        case = json.loads(line)
        product = catalogue[case["purchased_asin"]]
        goal = Goal.model_validate(case["goal"])
        ours = judge(goal, product, case["price"], case["options"], tagger)
        answers[f"line {number} ({case['kind']})"] = ours, case
    return answers


def test_web_shopping_reward_parts(realdata: Any, tally: Any) -> None:
    """All that does not depend on which words of a title are nouns."""
    results = {}
    for name, (ours, case) in rewards(realdata, LexicalTagger()).items():
        info = case["info"]
        results[name] = (
            ours.attributes == info["r_att"]
            and ours.options == info.get("r_option")
            and ours.price == info["r_price"]
            and ours.query_match == info["query_match"]
            and ours.category_match == info["category_match"]
            # The part of the reward that the type scales, where the type does not hide it.
            and (
                info["r_type"] == 0
                or ours.kind == 0
                or abs(ours.total / ours.kind - case["reward"] / info["r_type"]) < 1e-9
            )
        )
    tally("web shopping: rewards without their type", results)


def test_web_shopping_reward_types_lexical(realdata: Any, tally: Any) -> None:
    results = {
        name: ours.kind == case["info"]["r_type"]
        for name, (ours, case) in rewards(realdata, LexicalTagger()).items()
    }
    tally("web shopping: reward types, lexical tagger", results, minimum_share=0.95)


@pytest.mark.skipif(not SMALL_MODELS, reason="spaCy's en_core_web_sm is not installed")
def test_web_shopping_rewards_spacy(realdata: Any, tally: Any) -> None:
    results = {
        name: abs(ours.total - case["reward"]) < 1e-9
        and abs(ours.title_score - case["info"]["title_score"]) < 1e-9
        for name, (ours, case) in rewards(realdata, SpacyTagger(SMALL_MODELS[0])).items()
    }
    tally("web shopping: rewards, spaCy tagger", results)


def test_web_shopping_episodes(realdata: Any, tally: Any) -> None:
    """Every step's page, actions, reward and end are the original's."""
    recorded = read(realdata("webshop", "oracle", "text_env_transcripts_examples.json"))
    products = load_products(
        newest(realdata("webshop"), f"documents_{recorded['n_products']}.json*"), None, None
    )
    shop = Shop(products, price_seed="conformance")
    # As in the recorded purchases: where there is a range, its middle.
    for product in products:
        shop.prices[product.asin] = sum(product.prices) / len(product.prices)
    tagger = SpacyTagger(SMALL_MODELS[0]) if SMALL_MODELS else LexicalTagger()
    results = {
        f"episode {episode['index']} ({place})": follows(shop, tagger, episode)
        for place, episode in enumerate(recorded["episodes"])
    }
    tally("web shopping: episodes", results)


def follows(shop: Shop, tagger: TitleTagger, episode: dict[str, Any]) -> bool:
    visit = Visit(shop, Goal.model_validate(episode["goal"]), tagger, seed="conformance")
    for step in episode["steps"]:
        if (visit.page.observation, visit.page.actions) != (
            step["observation"],
            step["available_actions"],
        ):
            return False
        visit.step(step["action"])
        reward = 0.0 if visit.reward is None else visit.reward.total
        if reward != step["reward"] or (visit.reward is not None) != step["done"]:
            return False
    last = episode["final_observation"], episode["final_available_actions"]
    return (visit.page.observation, visit.page.actions) == last
