"""A step on one line, for inventing new ones: task, previous action, elements of the page.

    Find a flight: type Oslo in Where from, click Search | None | input Where from; button Search

Elements are separated by semicolons and begin with their kind; a select lists its options after a
colon: `select Passengers: 1, 2, 3`.
"""

import re

from gcd.tasks.web_browsing.markup import Element, PageWriter, describe
from gcd.tasks.web_browsing.page import parse_page, view_page
from gcd.tasks.web_browsing.tournament import CANDIDATES, ask

MIN_ELEMENTS = 2
MAX_ELEMENTS = 8
MIN_TASK_WORDS = 3
MAX_LABEL_WORDS = 6
MIN_OPTIONS = 2
MAX_OPTIONS = 6
_ELEMENT = re.compile(r"(button|link|checkbox|input|select) ([^:]+)(?:: (.+))?")
_PREVIOUS = re.compile(r"(.+) -> (?:(CLICK)|(TYPE|SELECT): (.+))")
_WORD = re.compile(r"[^\W\d_]{2}")


def write_one_line(task: str, previous_actions: list[str], elements: list[Element]) -> str:
    """The form above; of the previous actions the last one, without its role.

    Args:
        task: must hold no `|`.
        previous_actions: as in Mind2Web's `action_reprs`.
        elements: must hold none of `|;:,` in labels and options.
    """
    last = previous_actions[-1].split("]  ", 1)[1] if previous_actions else "None"
    shown = [
        f"{one.kind} {one.label}" + (f": {', '.join(one.options)}" if one.options else "")
        for one in elements
    ]
    return f"{task} | {last} | {'; '.join(shown)}"


def is_one_line(text: str) -> bool:
    """Whether `expand` can make a question of it."""
    return _parse(text) is not None


def expand(text: str) -> str:
    """The question about a page with these elements, the first five of them as choices.

    Raises ValueError if `text` is not of the form (`is_one_line`).
    """
    parsed = _parse(text)
    if parsed is None:
        raise ValueError(f"expected `task | previous action | elements`; got {text!r}")
    task, previous, elements = parsed
    writer = PageWriter(1)
    nodes = [writer.element(element) for element in elements]
    page = writer.node("html", [writer.node("body", nodes, {})], {})
    view = view_page(parse_page(page.xml), [node.id for node in nodes[:CANDIDATES]])
    return ask(view.text, task, previous, [choice for _, choice in view.choices])


def _parse(text: str) -> tuple[str, list[str], list[Element]] | None:
    """Task, previous actions and elements; None if `text` is not of the form."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 3 or "\n" in text:
        return None
    task, last, listed = parts
    previous = _parse_previous(last)
    elements = [_parse_element(one.strip()) for one in listed.rstrip(". ;").split(";")]
    known = [one for one in elements if one is not None]
    good = (
        len(_WORD.findall(task)) >= MIN_TASK_WORDS
        and previous is not None
        and len(known) == len(elements)
        and MIN_ELEMENTS <= len(known) <= MAX_ELEMENTS
        and len({one.label.casefold() for one in known}) == len(known)
    )
    return (task, previous or [], known) if good else None


def _parse_previous(text: str) -> list[str] | None:
    if text == "None":
        return []
    match = _PREVIOUS.fullmatch(text)
    if match is None:
        return None
    label, click, operation, value = match.groups()
    # The form does not tell the role; these are the usual ones.
    role = {"CLICK": "button", "TYPE": "textbox", "SELECT": "combobox"}[click or operation]
    return [describe(role, label, click or operation, value or "")]


def _parse_element(text: str) -> Element | None:
    match = _ELEMENT.fullmatch(text)
    if match is None:
        return None
    kind, label, listed = match.groups()
    options = tuple(option.strip() for option in listed.split(",")) if listed else ()
    right_options = not options
    if kind == "select":
        right_options = MIN_OPTIONS <= len(set(options)) == len(options) <= MAX_OPTIONS
    words = label.split()
    right_label = 1 <= len(words) <= MAX_LABEL_WORDS and _WORD.search(label)
    return Element(kind, label, options) if right_label and right_options else None
