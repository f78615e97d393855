"""Shared by the tests of web browsing: its settings, and a step made by hand."""

from typing import Any

from gcd.tasks.web_browsing import BrowsingEnvironment, Settings
from gcd.tasks.web_browsing.records import BrowsingSample, Step
from tests.settings import task_settings

SETTINGS: Settings = task_settings("web_browsing")


def page_of(count: int) -> str:
    """`count` buttons, called Word0, Word1, ..., with the ids 0, 1, ... ."""
    buttons = "".join(
        f'<button backend_node_id="{number}"> <text backend_node_id="t{number}">Word{number}'
        "</text> </button>"
        for number in range(count)
    )
    return f'<html backend_node_id="root">{buttons}</html>'


def hand_step(positives: list[str], negatives: list[str], **changes: Any) -> BrowsingSample:
    step = Step(
        id="task_step",
        website="shop",
        domain="Shopping",
        task="Press a button",
        previous_actions=[],
        operation="CLICK",
        value="",
        html=page_of(20),
        positives=positives,
        negatives=negatives,
    )
    return BrowsingSample(
        index="hand-0", problem="Press", groups={}, step=step.model_copy(update=changes)
    )


def choices(environment: BrowsingEnvironment) -> list[str]:
    """The lines B, C, ... of the question that is asked, without their letters."""
    listed = environment.messages[-1].content.split("\nA. None of the above\n")[1]
    return [line[3:] for line in listed.split("\n")]
