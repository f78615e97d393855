"""A step is asked, answered and scored as AgentBench v0.2 does it."""

import pytest

from gcd.core.records import Action, Message
from gcd.tasks import web_browsing
from gcd.tasks.web_browsing import BrowsingEnvironment
from gcd.tasks.web_browsing.records import BrowsingSample
from gcd.tasks.web_browsing.scoring import Prediction, Target, action_f1, overall, score_step
from gcd.tasks.web_browsing.tournament import Tournament, ask, target_operation
from tests.browsing import SETTINGS, choices, hand_step, page_of

NEGATIVES = [str(number) for number in range(1, 10)]


def playing(sample: BrowsingSample, **settings: int) -> BrowsingEnvironment:
    return BrowsingEnvironment(sample, SETTINGS.model_copy(update=settings))


def pick(environment: BrowsingEnvironment, *words: str) -> str:
    """The letter of the first choice that shows one of `words`; A if none does."""
    for letter, choice in zip("BCDEF", choices(environment), strict=False):
        if any(f"{word} " in choice for word in words):
            return letter
    return "A"


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("", None),
        ("I click the button.", None),
        ("Action: CLICK", None),
        ("answer: B\nAction: CLICK", None),
        ("Answer:  B", None),  # exactly one space
        ("Answer: G.", None),
        ("Answer: A.", Action(kind="A", content=None)),
        ("Answer: A.\nAction: CLICK", Action(kind="A", content=None)),
        ("Thought: x\nAnswer: B.\nAction: CLICK", Action(kind="B", content="CLICK")),
        (
            "Answer: F\nAction: TYPE\nValue: New York \nThanks",
            Action(kind="F", content="TYPE New York"),
        ),
        ("Answer: C. Action: SELECT Value: Pickup", Action(kind="C", content="SELECT Pickup")),
        ("Answer: B. Answer: C.", Action(kind="B", content="")),  # the first one counts
    ],
)
def test_parse_action(reply: str, action: Action | None):
    assert web_browsing.parse_action(reply) == action
    assert action is None or web_browsing.is_final(action)


def test_the_question_has_the_benchmarks_layout():
    previous = [f"[button]  Word{number} -> CLICK" for number in range(7)]
    question = ask("<html/>", "Press it", previous, ["<a id=0>", "<b id=1>"])
    assert question.startswith("'''\n<html/>\n'''\n\n")
    shown = "\n".join(previous[2:])
    assert f"\nTask: Press it\nPrevious actions:\n{shown}\n" in question
    assert question.endswith("\n\nA. None of the above\nB. <a id=0>\nC. <b id=1>")
    assert "\nPrevious actions:\nNone\n" in ask("<html/>", "Press it", [], [])


def test_batches_of_five_and_the_chosen_one_returns():
    tournament = Tournament(["0"], NEGATIVES, "seed")
    first = tournament.batch
    assert len(first) == 5
    tournament.choose(first[0])
    second = tournament.batch
    assert len(second) == 5
    assert not set(first) & set(second)
    tournament.choose(second[3])
    assert tournament.batch == [first[0], second[3]]
    tournament.choose(second[3])
    assert tournament.batch == []
    assert tournament.winner == second[3]


def test_the_order_depends_on_the_seed_alone():
    batches = {seed: Tournament(["0"], NEGATIVES, seed).batch for seed in ("a", "b")}
    assert batches["a"] != batches["b"]
    assert Tournament(["0"], NEGATIVES, "a").batch == batches["a"]


def test_one_that_is_left_without_being_asked_about_is_no_winner():
    tournament = Tournament(["0"], NEGATIVES[:5], "seed")
    tournament.drop()
    assert tournament.batch == []
    assert tournament.winner is None
    assert Tournament(["0"], [], "seed").batch == []


def test_a_later_drop_may_leave_nothing():
    tournament = Tournament(["0"], NEGATIVES[:4], "seed")
    assert len(tournament.batch) == 5
    tournament.choose("0")
    assert tournament.winner == "0"
    tournament = Tournament(["0"], NEGATIVES[:5], "seed")
    tournament.choose(tournament.batch[0])
    tournament.drop()
    assert tournament.winner is None


def test_the_right_element_and_operation_succeed():
    with playing(hand_step(["0"], NEGATIVES)) as environment:
        while environment.status == "running":
            environment.step(f"Answer: {pick(environment, 'Word0')}.\nAction: CLICK")
        assert (environment.status, environment.score) == ("completed", 1.0)
        assert environment.measures == {"element_accuracy": 1.0, "action_f1": 1.0}


def test_every_question_is_a_conversation_of_its_own():
    with playing(hand_step(["0"], NEGATIVES)) as environment:
        first = environment.messages
        observation = environment.step("Answer: B.\nAction: CLICK")
        assert environment.messages == [Message(role="user", content=observation or "")]
        assert len(first) == 1
        assert first != environment.messages


@pytest.mark.parametrize(
    ("changes", "reply", "measures"),
    [
        ({"operation": "TYPE", "value": "New York"}, "Action: TYPE\nValue: New York", (1.0, 1.0)),
        # Sets of words: their order does not count.
        ({"operation": "TYPE", "value": "New York"}, "Action: TYPE\nValue: York New", (1.0, 1.0)),
        ({"operation": "TYPE", "value": "New York"}, "Action: TYPE\nValue: York", (1.0, 0.8)),
        ({"operation": "SELECT", "value": "2"}, "Action: SELECT\nValue: 3", (1.0, 0.5)),
        # A value after CLICK is one word too many.
        ({}, "Action: CLICK\nValue: x", (1.0, 2 / 3)),
        ({}, "", (1.0, 0.0)),
    ],
)
def test_a_wrong_value_fails_the_step(
    changes: dict[str, str], reply: str, measures: tuple[float, float]
):
    with playing(hand_step(["0"], ["1"], **changes)) as environment:
        environment.step(f"Answer: {pick(environment, 'Word0')}.\n{reply}")
        accuracy, f1 = environment.measures.values()
    assert (accuracy, f1) == pytest.approx(measures)
    assert environment.score == float(f1 == 1)


def test_the_last_answer_gives_the_operation():
    """As in the original: the prediction is replaced by every later choice."""
    with playing(hand_step(["0"], NEGATIVES)) as environment:
        environment.step("Answer: B.\nAction: TYPE\nValue: x")
        while environment.status == "running":
            environment.step(f"Answer: {pick(environment, 'Word0')}.\nAction: CLICK")
        assert environment.measures["action_f1"] == 1.0


@pytest.mark.parametrize("reply", ["", "Answer: A.", "Answer: G.\nAction: CLICK"])
def test_an_agent_that_chooses_nothing_ends_with_an_invalid_action(reply: str):
    with playing(hand_step(["0"], NEGATIVES)) as environment:
        assert environment.step(reply) is not None
        assert environment.step(reply) is None
        assert (environment.status, environment.score) == ("agent invalid action", 0.0)
        assert environment.measures == {"element_accuracy": 0.0, "action_f1": 0.0}


def test_a_letter_without_a_choice_drops_the_batch():
    with playing(hand_step(["0"], ["1"])) as environment:
        assert environment.step("Answer: F.\nAction: CLICK") is None
        assert environment.status == "agent invalid action"


def test_without_a_positive_among_the_first_ten_the_step_is_unknown():
    with playing(hand_step([], NEGATIVES)) as environment:
        assert (environment.status, environment.messages) == ("unknown", [])
        assert environment.error
        assert environment.measures == {"element_accuracy": 0.0, "action_f1": 0.0}


def test_a_lone_candidate_is_never_asked_about():
    with playing(hand_step(["0"], [])) as environment:
        assert environment.status == "agent invalid action"


def test_the_number_of_questions_is_limited():
    with playing(hand_step(["0"], NEGATIVES), max_turns=2) as environment:
        assert environment.step("Answer: B.") is not None
        assert environment.step("Answer: B.") is None
        assert (environment.status, environment.score) == ("task limit reached", 0.0)


def test_any_positive_counts():
    sample = hand_step(["0", "1"], ["2"], html=page_of(3))
    for wanted in ("Word0", "Word1"):
        with playing(sample) as environment:
            environment.step(f"Answer: {pick(environment, wanted)}.\nAction: CLICK")
            assert environment.score == 1.0


def test_targets_go_through_the_parser_of_replies():
    assert target_operation("CLICK", "") == "CLICK "
    assert target_operation("CLICK", "ignored") == "CLICK "
    assert target_operation("TYPE", " New York ") == "TYPE New York"
    assert target_operation("SELECT", "two\nlines") == "SELECT two"
    assert target_operation("SELECT", "") == "SELECT "


def test_f1_end_points():
    assert action_f1(" ", "") == 1
    assert action_f1("CLICK ", "") == action_f1("", "CLICK ") == 0
    assert action_f1("TYPE a a", "TYPE a") == 1


def test_overall_counts_every_step():
    """Of four steps two have the right element and one the right operation too."""
    target = Target(["1", "2"], "CLICK ")
    steps = [
        score_step(Prediction("2", "CLICK "), target),
        score_step(Prediction("1", "TYPE a"), target),
        score_step(None, target),
        score_step(Prediction("1", "CLICK "), None),
    ]
    assert overall(steps) == {"element_acc": 50.0, "action_f1": 25.0, "step_sr": 25.0}
