"""Writes pages in the form of Mind2Web's `cleaned_html`."""

from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

# kind of an element -> its role in Mind2Web's `action_reprs`, and what one does with it
ROLES = {
    "button": "button",
    "link": "link",
    "checkbox": "checkbox",
    "input": "textbox",
    "select": "combobox",
}
OPERATIONS = {
    "button": "CLICK",
    "link": "CLICK",
    "checkbox": "CLICK",
    "input": "TYPE",
    "select": "SELECT",
}


@dataclass(frozen=True)
class Element:
    """Something on a page that a person acts on. `kind` is a key of ROLES; only a select has
    `options`."""

    kind: str
    label: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """An element of the page, with everything in it, as XML."""

    id: str
    xml: str


def describe(role: str, label: str, operation: str, value: str) -> str:
    """An action in the words of Mind2Web's `action_reprs`."""
    return f"[{role}]  {label} -> {operation}" + (f": {value}" if value else "")


class PageWriter:
    """Makes nodes; `backend_node_id`s count up from `first_id` in the order they are made."""

    def __init__(self, first_id: int) -> None:
        self._next_id = first_id

    def node(self, tag: str, children: list[Node], attributes: dict[str, str]) -> Node:
        """An element around its children."""
        node_id = self._new_id()
        named = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
        start = f'{tag} backend_node_id="{node_id}"{named}'
        if not children:
            return Node(node_id, f"<{start}/>")
        inner = " ".join(child.xml for child in children)
        return Node(node_id, f"<{start}> {inner} </{tag}>")

    def text(self, tag: str, text: str) -> Node:
        """An element that holds only text."""
        xml = f'<text backend_node_id="{self._new_id()}">{escape(text)}</text>'
        return self.node(tag, [Node("", xml)], {})

    def element(self, element: Element) -> Node:
        """A button or link with its label as text; the others carry theirs in an attribute."""
        label = element.label
        if element.kind == "button":
            return self.text("button", label)
        if element.kind == "link":
            return self.text("a", label)
        if element.kind == "checkbox":
            return self.node("input", [], {"type": "checkbox", "aria_label": label})
        if element.kind == "input":
            return self.node("input", [], {"type": "text", "placeholder": label})
        options = [self.text("option", option) for option in element.options]
        return self.node("select", options, {"aria_label": label})

    def _new_id(self) -> str:
        self._next_id += 1
        return str(self._next_id - 1)
