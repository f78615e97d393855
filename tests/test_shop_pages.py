"""The text environment: pages, what can be clicked, and where it leads."""

import pytest

from gcd.tasks.web_shopping.pages import Page, split_action, start_page
from tests.shops import CHAIR, LAMP, raw, shop, visit

OPEN = ("search[desk lamp]", "click[B000000001]")
HEAD = "Instruction: [SEP] i want a green desk lamp [SEP] Back to Search"
ITEM = (
    f"{HEAD} [SEP] < Prev [SEP] color [SEP] red | blue [SEP] green [SEP] Brass Desk Lamp [SEP] "
    "Price: $12.99 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
)


def test_the_start_page() -> None:
    page = start_page("a lamp")
    assert page.observation == "WebShop [SEP] Instruction: [SEP] a lamp [SEP] Search"
    assert page.actions == {"has_search_bar": True, "clickables": ["search"]}


def test_results_list_id_title_and_price() -> None:
    page = visit("search[brass desk lamp]").page
    assert page.observation == (
        f"{HEAD} [SEP] Page 1 (Total results: 2) [SEP] Next > [SEP] B000000001 [SEP] "
        "Brass Desk Lamp [SEP] $12.99 [SEP] B000000002 [SEP] Steel Desk Lamp [SEP] "
        "$3.99 to $10.99"
    )
    assert page.actions == {
        "has_search_bar": False,
        "clickables": ["back to search", "next >", "b000000001", "b000000002"],
    }


def test_an_item_lists_options_first_and_does_not_show_the_chosen_one() -> None:
    for page in (visit(*OPEN).page, visit(*OPEN, "click[green]").page):
        assert page.observation == ITEM
        buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
        assert page.actions["clickables"] == [*buttons, "red | blue", "green"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("description", " [SEP] A lamp for desks."),
        ("features", " [SEP] Bright light [SEP] Made of brass"),
        ("reviews", ""),
    ],
)
def test_sub_pages_lead_back_to_the_item(name: str, texts: str) -> None:
    sub_page = visit(*OPEN, f"click[{name}]")
    assert sub_page.page.observation == f"{HEAD} [SEP] < Prev{texts}"
    assert sub_page.page.actions["clickables"] == ["back to search", "< prev"]
    sub_page.step("click[< Prev]")
    assert sub_page.page.observation == ITEM


def test_an_empty_description_has_no_node_and_an_empty_feature_an_empty_one() -> None:
    where = shop({**CHAIR, "small_description": [""]})
    opened = ("search[chair]", "click[b000000003]")
    description = visit(*opened, "click[description]", where=where).page.observation
    assert description == f"{HEAD} [SEP] < Prev"
    features = visit(*opened, "click[features]", where=where).page.observation
    assert features == f"{HEAD} [SEP] < Prev [SEP] "


@pytest.mark.parametrize(("text", "shown"), [("\n \t", "a"), ("\n", "a"), (" \t", "a [SEP] ")])
def test_white_space_is_dropped_only_with_a_line_break(text: str, shown: str) -> None:
    assert Page(address="", texts=["a", text]).observation == shown


def test_chosen_options_survive_sub_pages_but_not_the_results() -> None:
    kept = visit(*OPEN, "click[green]", "click[features]", "click[< prev]", "click[buy now]")
    assert kept.reward is not None
    assert kept.reward.total == 1.0
    lost = visit(*OPEN, "click[green]", "click[< prev]", "click[b000000001]", "click[buy now]")
    assert lost.reward is not None
    assert lost.reward.options == 0.0


def test_the_last_click_on_an_option_counts() -> None:
    changed = visit(*OPEN, "click[green]", "click[red | blue]", "click[buy now]")
    assert changed.reward is not None
    assert changed.reward.options == 0.0


@pytest.mark.parametrize(
    "action",
    [
        "",
        "foo",
        "click[search]",
        "click[not there]",
        "search[]",
        "Search[lamp]",
        "click[b000000001]",
    ],
)
def test_impossible_actions_change_nothing(action: str) -> None:
    one = visit(action)
    assert one.page == visit().page
    assert one.reward is None


def test_search_works_on_every_page_and_arguments_ignore_case() -> None:
    assert visit(*OPEN, "search[chair]").page == visit("search[CHAIR]").page
    assert "Garden Chair" in visit("search[CHAIR]").page.observation


def test_pages_of_results_have_no_upper_end() -> None:
    where = shop(*(raw(f"B00000010{number:X}", f"Lamp {number}") for number in range(13)))
    second = visit("search[lamp]", "click[next >]", where=where)
    assert "Page 2 (Total results: 13) [SEP] < Prev [SEP] Next >" in second.page.observation
    assert len(second.page.actions["clickables"]) == 3 + 3
    assert second.page.actions["clickables"][:3] == ["back to search", "< prev", "next >"]
    second.step("click[next >]")
    third = f"{HEAD} [SEP] Page 3 (Total results: 13) [SEP] < Prev [SEP] Next >"
    assert second.page.observation == third
    for _ in range(2):
        second.step("click[< prev]")
    assert second.page == visit("search[lamp]", where=where).page
    # Back from an item to the page of results that it was on.
    second.step("click[next >]")
    item = second.page.actions["clickables"][3]
    second.step(f"click[{item}]")
    second.step("click[< prev]")
    assert "Page 2 " in second.page.observation


def test_back_to_search_forgets_everything() -> None:
    assert visit(*OPEN, "click[green]", "click[Back to Search]").page == visit().page


def test_buying_ends_with_the_score() -> None:
    bought = visit(*OPEN, "click[Buy Now]")
    assert bought.reward is not None
    assert bought.page.observation.startswith("Thank you for shopping with us! [SEP] Your code:")
    assert "options [SEP] {} [SEP]" in bought.page.observation
    assert f"Your score (min 0.0, max 1.0) [SEP] {2 / 3} [SEP]" in bought.page.observation
    assert bought.page.actions == {"has_search_bar": False, "clickables": []}


def test_an_option_that_is_called_like_a_button_acts_like_it() -> None:
    options = {"Kind": [{"value": "Features"}, {"value": "Buy Now"}]}
    where = shop({**LAMP, "customization_options": options})
    assert "Bright light" in visit(*OPEN, "click[features]", where=where).page.observation
    assert visit(*OPEN, "click[buy now]", where=where).reward is not None


def test_a_query_may_look_like_another_page() -> None:
    """The original takes the kind of a page from its address, which holds the query."""
    item = visit("search[lamp search_results]", "click[b000000001]")
    assert item.page.kind == "search_results"
    item.step("click[< prev]")
    assert "Page 0 " in item.page.observation


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("<r>", {"B000000001", "B000000002", "B000000003"}),
        ("<q> chairs", {"B000000003"}),
        ("<c> garden", {"B000000001", "B000000002", "B000000003"}),
        ("<a> easy clean", {"B000000001"}),
        ("<c>", set()),
    ],
)
def test_special_queries_list_by_other_things_than_words(query: str, found: set[str]) -> None:
    clickables = visit(f"search[{query}]").page.actions["clickables"]
    assert {text.upper() for text in clickables if text.startswith("b0")} == found


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        ("click[a]", ("click", "a")),
        ("search[a[b]", ("search[a", "b")),
        ("click[a]b]", ("click", "a]b")),
        ("click[]", ("click[]", None)),
        ("look", ("look", None)),
    ],
)
def test_actions_are_split_at_the_last_brackets(action: str, parts: tuple[str, str | None]) -> None:
    assert split_action(action) == parts
