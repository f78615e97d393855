"""Which generated goals become samples: those that can be met, and by nothing else.

A goal is kept if a shopper who knows the product can buy it within the turns of an episode for
reward 1, while no other value of an asked option and no other product of the search reaches 1.
"""

import random
from collections.abc import Iterator

from gcd.core.errors import UserError
from gcd.tasks.web_shopping.goals import Goal
from gcd.tasks.web_shopping.pages import Shop, Visit
from gcd.tasks.web_shopping.reward import judge
from gcd.tasks.web_shopping.titles import LexicalTagger

EASY, HARD = "easy", "hard"
EASY_ATTRIBUTES = 3
PRICE_WORDS = ", and price lower than"
# Not spaCy, even where it is installed: the samples must not depend on it.
_TAGGER = LexicalTagger()


def tier(goal: Goal) -> str:
    """Easy: no option is asked, and few attributes."""
    if goal.goal_options or len(goal.attributes) > EASY_ATTRIBUTES:
        return HARD
    return EASY


def request(goal: Goal) -> str:
    """The instruction without its price."""
    return goal.instruction_text.split(PRICE_WORDS)[0]


def search_words(goal: Goal) -> str:
    """What finds the product: the kind of product for an easy goal, else the whole request."""
    return goal.query if tier(goal) == EASY else request(goal)


def gold_actions(goal: Goal, shop: Shop) -> list[str]:
    """Search, open the product, choose each asked option, buy."""
    options = shop.products[goal.asin].options
    wanted = (
        list(goal.goal_options.values())
        if isinstance(goal.goal_options, dict)
        else goal.goal_options
    )
    assert all(any(value in values for values in options.values()) for value in wanted)
    chosen = [f"click[{value}]" for value in wanted]
    return [
        f"search[{search_words(goal)}]",
        f"click[{goal.asin.lower()}]",
        *chosen,
        "click[buy now]",
    ]


def _reward(shop: Shop, goal: Goal, actions: list[str]) -> float:
    """What a shopper gets who does `actions`; 0 if nothing is bought."""
    visit = Visit(shop, goal, _TAGGER, seed="gold")
    for action in actions:
        visit.step(action)
    return visit.reward.total if visit.reward else 0.0


def is_solvable(shop: Shop, goal: Goal, max_turns: int) -> bool:
    """Whether the gold actions are few enough and give reward 1."""
    actions = gold_actions(goal, shop)
    return len(actions) <= max_turns and _reward(shop, goal, actions) == 1.0


def is_distinct(shop: Shop, goal: Goal) -> bool:
    """Whether a wrong option, or another product of the search, always costs something."""
    return not (_has_equal_option(shop, goal) or _has_rival(shop, goal))


def _has_equal_option(shop: Shop, goal: Goal) -> bool:
    """Whether some other value of an asked option is as good as the asked one."""
    options = shop.products[goal.asin].options
    actions = gold_actions(goal, shop)
    for place, action in enumerate(actions[2:-1], start=2):
        value = action.removeprefix("click[").removesuffix("]")
        for values in options.values():
            for other in values if value in values else []:
                changed = [*actions[:place], f"click[{other}]", *actions[place + 1 :]]
                if other != value and _reward(shop, goal, changed) == 1.0:
                    return True
    return False


def _has_rival(shop: Shop, goal: Goal) -> bool:
    """Whether another product that a sensible search finds could be bought for reward 1."""
    for words in (goal.query, request(goal)):
        for product in shop.find(words.lower().split(" "), random.Random(0)):
            # All values at once: an upper bound for every choice among them.
            values = {value: value for group in product.options.values() for value in group}
            reward = judge(goal, product, shop.prices[product.asin], values, _TAGGER)
            if product.asin != goal.asin and reward.total == 1.0:
                return True
    return False


def choose(
    shop: Shop, goals: list[Goal], count: int, max_turns: int, taken: set[str]
) -> list[Goal]:
    """`count` goals, easy and hard by turns, each for another product.

    Where one tier has no more, the other fills up.

    Args:
        shop: where the goals are to be met.
        goals: candidates, in a random order.
        count: how many; an odd one is easy.
        max_turns: of an episode.
        taken: products that are no longer free; those chosen are added.

    Raises:
        UserError: the catalogue has too few such goals.
    """
    tiers = [
        _free(shop, [goal for goal in goals if tier(goal) == name], max_turns, taken)
        for name in (EASY, HARD)
    ]
    chosen: list[Goal] = []
    while len(chosen) < count:
        mine, other = tiers[len(chosen) % 2], tiers[1 - len(chosen) % 2]
        goal = next(mine, None) or next(other, None)
        if goal is None:
            raise UserError(
                f"web_shopping: expected {count} tasks of a kind, the catalogue has only "
                f"{len(chosen)} more; raise `tasks.web_shopping.products` in params.yaml."
            )
        chosen.append(goal)
    return chosen


def _free(shop: Shop, goals: list[Goal], max_turns: int, taken: set[str]) -> Iterator[Goal]:
    """The goals that qualify, of products not taken yet; it takes theirs."""
    for goal in goals:
        if (
            goal.asin not in taken
            and is_solvable(shop, goal, max_turns)
            and is_distinct(shop, goal)
        ):
            taken.add(goal.asin)
            yield goal
