"""A web page as the agent reads it: what surrounds the candidates, as one line of flat HTML.

Follows `prune_tree` and `get_tree_repr(keep_html_brackets=True)` of AgentBench v0.2
(src/server/tasks/mind2web/data_utils/dom_utils.py), which are Mind2Web's own. A page is Mind2Web's
`cleaned_html`: XML in which every element has a `backend_node_id` and text is in `text` elements.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lxml import etree

MAX_DEPTH = 5  # of descendants below a candidate's children
MAX_DESCENDANTS = 50
MAX_SIBLINGS = 3  # on either side
MAX_WORDS = 20  # of a text, and of an element's attributes together
MAX_ATTRIBUTE_WORDS = 5
LONG_WORD = 15  # characters; words of attributes this long are left out
CHOICE_WORDS = 10
ATTRIBUTES = (
    "role",
    "aria_role",
    "type",
    "alt",
    "aria_description",
    "aria_label",
    "label",
    "title",
    "name",
    "text_value",
    "value",
    "placeholder",
    "input_checked",
    "input_value",
    "option_selected",
    "class",
)
_EMPTY_VALUES = ("hidden", "none", "presentation", "null", "undefined")
# In this order: &amp; comes before the others, so that `&amp;lt;` becomes `<`.
_ENTITIES = {
    "&quot;": '"',
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&nbsp;": " ",
    "&ndash;": "-",
    "&rsquo;": "'",
    "&lsquo;": "'",
    "&ldquo;": '"',
    "&rdquo;": '"',
    "&#39;": "'",
    "&#40;": "(",
    "&#41;": ")",
}


@dataclass(frozen=True)
class PageView:
    """What one question shows of a page.

    `choices` are (backend_node_id, text) of the candidates, in document order.
    """

    text: str
    choices: list[tuple[str, str]]


def parse_page(html: str) -> etree._Element:
    """The page's root; raises ValueError if `html` is not well-formed XML."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        return etree.fromstring(html, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"not well-formed: {error}") from error


def node_ids(page: etree._Element) -> set[str]:
    """The `backend_node_id` of every element."""
    return {str(node) for node in page.xpath("//@backend_node_id")}


def view_page(page: etree._Element, candidates: list[str]) -> PageView:
    """The page around `candidates`, and a choice for each of them.

    Args:
        page: its root, which is left as it is.
        candidates: ids of elements of the page; raises KeyError for any other.
    """
    pruned = prune_tree(page, candidates)
    nodes = pruned.xpath("//*[@backend_node_id]")
    numbers: dict[str, int] = {}
    for node in nodes:
        numbers.setdefault(_id(node), len(numbers))
    choices = [
        (_id(node), " ".join(flat_html(node, numbers).split()[:CHOICE_WORDS])) for node in nodes
    ]
    return PageView(flat_html(pruned, numbers), choices)


def prune_tree(page: etree._Element, candidates: list[str]) -> etree._Element:
    """A copy with the candidates, their ancestors, descendants and near siblings only.

    Only candidates keep their `backend_node_id`; an element that is left without attributes and
    text, with one child at most, gives way to that child.
    """
    kept = _kept_ids(page, candidates)
    pruned = copy.deepcopy(page)
    # Backwards: children before their parents, whose ids are then still there.
    for node in reversed(pruned.xpath("//*")):
        parent = node.getparent()
        is_text = node.tag == "text"
        owner = parent if is_text and parent is not None else node
        if _id(owner) not in kept and parent is not None:
            parent.remove(node)
            continue
        if is_text or _id(node) not in candidates:
            node.attrib.pop("backend_node_id", None)
        if parent is not None and not is_text and _says_nothing(node):
            for child in list(node):
                node.addprevious(child)
            parent.remove(node)
    return pruned


def flat_html(tree: etree._Element, numbers: dict[str, int]) -> str:
    """`tree` on one line, with attribute values but no attribute names.

    Args:
        tree: an element, which is left as it is.
        numbers: the short id for each `backend_node_id` in the tree.
    """
    tree = copy.deepcopy(tree)
    for node in tree.xpath("//*"):
        if node.tag == "text":
            node.text = " ".join((node.text or "").split()[:MAX_WORDS])
            continue
        words = _attribute_words(node)
        node_id = _id(node)
        node.attrib.clear()
        if node_id:
            node.set("id", str(numbers[node_id]))
        if words:
            node.set("meta", " ".join(words[:MAX_WORDS]))
    text: str = etree.tostring(tree, encoding="unicode")
    text = text.replace('"', " ")
    text = text.replace("meta= ", "").replace("id= ", "id=").replace(" >", ">")
    text = re.sub(r"<text>(.*?)</text>", r"\1", text)
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    return re.sub(r"\s+", " ", text).strip()


def _id(node: etree._Element) -> str:
    return str(node.get("backend_node_id", ""))


def _says_nothing(node: etree._Element) -> bool:
    children = list(node)
    return not node.attrib and len(children) <= 1 and all(child.tag != "text" for child in children)


def _kept_ids(page: etree._Element, candidates: Iterable[str]) -> set[str]:
    by_id: dict[str, etree._Element] = {}
    for node in page.xpath("//*[@backend_node_id]"):
        by_id.setdefault(_id(node), node)
    kept: set[str] = set()
    for candidate in candidates:
        node = by_id[candidate]
        kept.add(candidate)
        kept.update(_id(ancestor) for ancestor in node.iterancestors())
        descendants = list(_descendants(node, MAX_DEPTH))
        kept.update(_id(descendant) for descendant in descendants[:MAX_DESCENDANTS])
        if node.getparent() is not None:
            siblings = [child for child in node.getparent() if child.tag != "text"]
            place = siblings.index(node)
            near = siblings[max(0, place - MAX_SIBLINGS) : place + MAX_SIBLINGS + 1]
            kept.update(_id(sibling) for sibling in near)
    return kept


def _descendants(node: etree._Element, depth: int) -> Iterator[etree._Element]:
    """Depth first; children of `node`, and `depth` generations below them."""
    for child in node:
        yield child
        if depth > 0:
            yield from _descendants(child, depth - 1)


def _attribute_words(node: etree._Element) -> list[str]:
    """Up to five short words of each telling attribute; equal values once."""
    values: list[str] = []
    for name in ATTRIBUTES:
        value = node.get(name, "").lower()
        if value in _EMPTY_VALUES or value.startswith("http"):
            continue
        words = [word for word in value.split() if len(word) < LONG_WORD]
        short = " ".join(words[:MAX_ATTRIBUTE_WORDS])
        if short and short not in values:
            values.append(short)
    return " ".join(values).split()
