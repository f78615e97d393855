"""A step on one line, for inventing new ones: task, previous action if any, elements of the page.

    Find a flight: type Oslo in Where from, click Search | input Where from; button Search
    Find a room: tick Sea view, click Search | Sea view -> CLICK | link Help; button Search

Elements are separated by semicolons and begin with their kind; a select may list its options after
a colon: `select Passengers: 1, 2, 3`. A small model keeps the form loosely: it may name an element
by what one does with it (`click Search`), and what is not an element, or names one again, is passed
over, as long as two elements are left.
"""

import re

from gcd.tasks.web_browsing.markup import Element, PageWriter, describe
from gcd.tasks.web_browsing.page import parse_page, view_page
from gcd.tasks.web_browsing.tournament import CANDIDATES, ask

MIN_ELEMENTS = 2
MAX_ELEMENTS = 8
MIN_TASK_WORDS = 3
MAX_LABEL_WORDS = 6
MAX_OPTIONS = 6
KINDS = {kind: kind for kind in ("button", "link", "checkbox", "input", "select")} | {
    "click": "button",
    "submit": "button",
    "tick": "checkbox",
    "type": "input",
}
_ELEMENT = re.compile(rf"({'|'.join(KINDS)}) ([^:]+)(?:: (.+))?", re.IGNORECASE)
_PREVIOUS = re.compile(r"(.+) -> (?:(CLICK)|(TYPE|SELECT): (.+))")
_WORD = re.compile(r"[^\W\d_]{2}")


def write_one_line(task: str, previous_actions: list[str], elements: list[Element]) -> str:
    """The form above; of the previous actions the last one, without its role.

    Args:
        task: must hold no `|`.
        previous_actions: as in Mind2Web's `action_reprs`.
        elements: must hold none of `|;:,` in labels and options.
    """
    last = [previous_actions[-1].split("]  ", 1)[1]] if previous_actions else []
    shown = [
        f"{one.kind} {one.label}" + (f": {', '.join(one.options)}" if one.options else "")
        for one in elements
    ]
    return " | ".join([task, *last, "; ".join(shown)])


def is_one_line(text: str) -> bool:
    """Whether `expand` can make a question of it."""
    return _parse(text) is not None


def expand(text: str) -> str:
    """The question about a page with these elements, the first five of them as choices.

    Raises ValueError if `text` is not of the form (`is_one_line`).
    """
    parsed = _parse(text)
    if parsed is None:
        raise ValueError(f"expected `task | elements`, or an action between them; got {text!r}")
    task, previous, elements = parsed
    writer = PageWriter(1)
    nodes = [writer.element(element) for element in elements]
    page = writer.node("html", [writer.node("body", nodes, {})], {})
    view = view_page(parse_page(page.xml), [node.id for node in nodes[:CANDIDATES]])
    return ask(view.text, task, previous, [choice for _, choice in view.choices])


def _parse(text: str) -> tuple[str, list[str], list[Element]] | None:
    """Task, previous actions and elements; None if `text` is not of the form."""
    parts = [part.strip() for part in text.split("|")]
    if len(parts) not in (2, 3) or "\n" in text:
        return None
    task, listed = parts[0], parts[-1]
    elements: dict[str, Element] = {}
    for one in listed.rstrip(". ;").split(";"):
        element = _parse_element(one.strip())
        if element is not None:
            elements.setdefault(element.label.casefold(), element)
    if len(_WORD.findall(task)) < MIN_TASK_WORDS or len(elements) < MIN_ELEMENTS:
        return None
    previous = _parse_previous(parts[1]) if len(parts) == 3 else []
    return task, previous, list(elements.values())[:MAX_ELEMENTS]


def _parse_previous(text: str) -> list[str]:
    match = _PREVIOUS.fullmatch(text)
    if match is None:
        return []
    label, click, operation, value = match.groups()
    # The form does not tell the role; these are the usual ones.
    role = {"CLICK": "button", "TYPE": "textbox", "SELECT": "combobox"}[click or operation]
    return [describe(role, label, click or operation, value or "")]


def _parse_element(text: str) -> Element | None:
    match = _ELEMENT.fullmatch(text)
    if match is None:
        return None
    word, label, listed = match.groups()
    kind = KINDS[word.casefold()]
    if len(label.split()) > MAX_LABEL_WORDS or not _WORD.search(label):
        return None
    options = (
        [option.strip() for option in listed.split(",")] if listed and kind == "select" else []
    )
    return Element(kind, label, tuple(dict.fromkeys(options))[:MAX_OPTIONS])
