"""reports/report.html: the report's Markdown as one page that needs no network and runs nothing.

Figures are inside it, links to recorded files stay relative. The page's Content-Security-Policy
allows its own style and images out of itself, and no script at all.
"""

import base64
import hashlib
import html
import re
from itertools import pairwise
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt
from markdown_it.token import Token

from gcd.core.errors import UserError

PAGES = Path(__file__).parent / "pages"
LONG_CELL = 60  # characters from which a cell's text wraps


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script, or style, that may be used."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def anchor(title: str, taken: set[str]) -> str:
    """The heading's id, as code hosts make it; a number is added to one that is taken."""
    name = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
    found = next(
        candidate
        for candidate in (name, *(f"{name}-{number}" for number in range(1, 10_000)))
        if candidate not in taken
    )
    taken.add(found)
    return found


def image_address(source: str, folder: Path) -> str:
    """The picture `source`, a path below `folder`, as a data: address.

    Raises UserError if there is no such file, or it is no SVG.
    """
    path = folder / source
    if path.suffix != ".svg" or not path.is_file():
        raise UserError(f"{path}: expected a figure that `report` drew. Run `dvc repro report`.")
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _headings(tokens: list[Token]) -> list[tuple[str, str]]:
    """Give every heading its id; returns (id, text) of those of the second level."""
    taken: set[str] = set()
    found = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or [])
            name = anchor(text, taken)
            opening.attrSet("id", name)
            if opening.tag == "h2":
                found.append((name, text))
    return found


def _images(tokens: list[Token], folder: Path) -> None:
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                child.attrSet("src", image_address(str(child.attrs["src"]), folder))


def _cells(tokens: list[Token]) -> None:
    """Classes in place of the parser's style attributes, which the page's policy forbids."""
    for opening, inline in pairwise(tokens):
        if opening.type in ("td_open", "th_open"):
            right = opening.attrs.pop("style", "") == "text-align:right"
            long = opening.type == "td_open" and len(inline.content) > LONG_CELL
            names = [name for name, flag in (("number", right), ("long", long)) if flag]
            if names:
                opening.attrSet("class", " ".join(names))


def render_page(markdown: str, folder: Path) -> str:
    """The page of a report in Markdown whose figures lie below `folder`.

    HTML inside the Markdown is shown as text. Raises UserError if a figure is missing.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    sections = _headings(tokens)
    _images(tokens, folder)
    _cells(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    body = body.replace("</table>", "</table></div>")
    style = (PAGES / "report.css").read_text(encoding="utf-8")
    title = next(line.removeprefix("# ") for line in markdown.splitlines() if line.startswith("# "))
    contents = [f'<li><a href="#{name}">{html.escape(text)}</a></li>' for name, text in sections]
    frame = (PAGES / "report.html").read_text(encoding="utf-8")
    return Template(frame).substitute(
        style=style,
        style_hash=source_hash(style),
        title=html.escape(title),
        contents="\n".join(contents),
        body=body,
    )
