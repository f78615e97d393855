"""Web shopping is played as AgentBench plays it."""

from typing import Any

import pytest

from gcd.core.records import Action
from gcd.tasks import web_shopping
from gcd.tasks.web_shopping import Settings, ShopSample
from tests.settings import task_settings
from tests.shops import act, goal, shop

SETTINGS: Settings = task_settings("web_shopping")


def sample(**changed: Any) -> ShopSample:
    return ShopSample(index="hand-0", goal=goal(**changed), shop=shop())


def play(one: ShopSample, *actions: str, **settings: Any) -> Any:
    with web_shopping.start(one, SETTINGS.model_copy(update=settings)) as environment:
        for action in actions:
            environment.step(act(action))
        return environment


def test_an_episode_is_told_as_agentbench_tells_it() -> None:
    with web_shopping.start(sample(), SETTINGS) as environment:
        (first,) = environment.messages
        assert first.content == web_shopping.first_message("i want a green desk lamp")
        assert first.content == (
            "Observation:\nWebShop [SEP] Instruction: [SEP] i want a green desk lamp [SEP] Search"
            "\n\nAvailable Actions:\n{'has_search_bar': True, 'clickables': ['search']}"
        )
        observation = environment.step(act("search[chair]"))
        assert observation is not None
        assert observation.endswith(
            "\n\nAvailable Actions:\n{'has_search_bar': False, "
            "'clickables': ['back to search', 'next >', 'b000000003']}"
        )
        roles = [message.role for message in environment.messages]
        assert roles == ["user", "assistant", "user"]
        assert environment.messages[-1].content == observation


def test_buying_completes_with_the_reward_and_its_parts() -> None:
    right = ("search[brass desk lamp]", "click[b000000001]", "click[green]", "click[Buy Now]")
    bought = play(sample(), *right)
    assert (bought.status, bought.score) == ("completed", 1.0)
    assert bought.measures == dict.fromkeys(bought.measures, 1.0)
    assert bought.details["backend"] == "embedded"
    assert bought.details["title_tagger"]
    wrong = play(sample(price_upper=10.0), *right[:2], "click[red | blue]", right[3])
    assert (wrong.status, wrong.score) == ("completed", pytest.approx(1 / 3))
    assert wrong.measures == {
        "reward": wrong.score,
        "r_type": 1.0,
        "attributes": 1.0,
        "options": 0.0,
        "price": 0.0,
    }


def test_no_action_fails_validation_and_turns_are_limited() -> None:
    silent = play(sample(), "buy it")
    assert (silent.status, silent.score) == ("agent validation failed", 0.0)
    lost = play(sample(), "search[lamp]", "click[nothing]", max_turns=2)
    assert (lost.status, lost.score) == ("task limit reached", 0.0)
    # Buying in the last turn still counts.
    opened = ("search[brass desk lamp]", "click[b000000001]", "click[buy now]")
    late = play(sample(goal_options={}), *opened, max_turns=3)
    assert (late.status, late.score) == ("completed", 1.0)
    assert {tuple(one.measures) for one in (silent, lost, late)} == {tuple(late.measures)}


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("Thought: x\n\nAction:\nsearch[a b]", ("search", "a b")),
        ("Action: click[Buy Now]", ("click", "Buy Now")),
        ("Reaction: click[x]", ("click", "x")),
        ("Action:\n\n\n  click[a]b]", ("click", "a")),
        ("Action: click[a]\nAction: click[b]", ("click", "a")),
        ("Action: search[a[b]", ("search[a", "b")),
        ("Action:\n\tclick[x]", None),
        ("Action: `click[x]`", None),
        ("Action: click[]", None),
        ("Action: Click[x]", None),
        ("click[x]", None),
        ("", None),
    ],
)
def test_actions_are_parsed_by_agentbenchs_rule(reply: str, action: tuple[str, str] | None) -> None:
    parsed = web_shopping.parse_action(reply)
    assert parsed == (action and Action(kind=action[0], content=action[1]))


def test_only_buying_is_final() -> None:
    assert web_shopping.is_final(Action(kind="click", content="Buy Now"))
    assert not web_shopping.is_final(Action(kind="search", content="buy now"))
    assert not web_shopping.is_final(Action(kind="click", content="< prev"))


def test_a_problem_is_a_request() -> None:
    assert web_shopping.is_problem("i need a lamp, and price lower than 20.00 dollars")
    assert not web_shopping.is_problem("")
    assert not web_shopping.is_problem("Instruction: [SEP] i need a lamp [SEP] Search")
