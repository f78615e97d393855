"""The pages of a generated web site, and how its elements are ranked."""

import random
from dataclasses import dataclass

from gcd.tasks.web_browsing.markup import Element, Node, PageWriter
from gcd.tasks.web_browsing.records import TOP_RANKS
from gcd.tasks.web_browsing.templates import FOOTER, Field, Template

FOOTER_LINKS = 4
# Shares of steps in which an element around the right one counts as right too, ranked among the
# first ten, or behind them.
SECOND_POSITIVE_SHARE = 0.1
LOST_POSITIVE_SHARE = 0.05


@dataclass(frozen=True)
class Page:
    """`elements` by id in document order; `wrappers` are {id: tag} of what encloses one element.

    `target` is the right element, `around` what encloses it, from inside out.
    """

    html: str
    elements: dict[str, Element]
    wrappers: dict[str, str]
    target: str
    around: list[str]


def write_page(rng: random.Random, template: Template, hidden: set[str], target: Field) -> Page:
    """A page of the site whose form lacks the elements with `hidden` labels."""
    writer = PageWriter(rng.randint(1, 900))
    elements: dict[str, Element] = {}
    wrappers: dict[str, str] = {}
    around: list[str] = []

    def add(element: Element, tags: tuple[str, ...]) -> Node:
        node = writer.element(element)
        elements[node.id] = element
        for tag in tags:
            node = writer.node(tag, [node], {})
            wrappers[node.id] = tag
            if element == target.element:
                around.append(node.id)
        return node

    links = [add(Element("link", label), ("li",)) for label in template.links]
    tools = [add(Element("input", "Search this site"), ())]
    tools += [add(Element("button", label), ()) for label in template.buttons]
    heading = writer.text("h1", template.title)
    fields = [*template.fields, template.submit_field]
    rows = [add(field.element, ("div", "div")) for field in fields if field.label not in hidden]
    footer = [add(Element("link", label), ("li",)) for label in rng.sample(FOOTER, FOOTER_LINKS)]
    header = writer.node("header", [writer.node("ul", links, {}), *tools], {})
    main = writer.node("main", [heading, writer.node("form", rows, {})], {})
    bottom = writer.node("footer", [writer.node("ul", footer, {})], {})
    html = writer.node("html", [writer.node("body", [header, main, bottom], {})], {})
    right = next(node_id for node_id, element in elements.items() if element == target.element)
    return Page(html.xml, elements, wrappers, right, around)


def rank_candidates(
    rng: random.Random, page: Page, rank_noise: float, near: int
) -> tuple[list[str], dict[str, int]]:
    """The positives, and the rank of every candidate, 0 for the best.

    `near` candidates are among the first ten, which the agent is asked about; with fewer than ten
    the next rank is 10. The right element is one of them, as a step without it cannot be won. What
    encloses one element is ranked last; what encloses the right one is a candidate only as a
    positive.
    """
    form_kinds = ("input", "select", "checkbox")
    order = {
        node_id: rng.random() + (0.0 if element.kind in form_kinds else 0.5)
        for node_id, element in page.elements.items()
        if node_id != page.target
    }
    ranked = sorted(order, key=order.__getitem__)
    enclosing = [node_id for node_id in page.wrappers if node_id not in page.around]
    ranked += rng.sample(enclosing, len(enclosing))
    place = rng.randint(1, near - 1) if rng.random() < rank_noise else 0
    ranked.insert(place, page.target)
    positives = [page.target]
    inner, outer = page.around
    if rng.random() < SECOND_POSITIVE_SHARE and place < near - 1:
        ranked.insert(rng.randint(place + 1, near - 1), inner)
        positives.append(inner)
    if rng.random() < LOST_POSITIVE_SHARE:
        ranked.insert(rng.randint(near, len(ranked)), outer)
        positives.append(outer)
    gap = TOP_RANKS - near
    return positives, {
        node_id: rank if rank < near else rank + gap for rank, node_id in enumerate(ranked)
    }
