"""Any text stays literal in the report's Markdown: in fences, in table cells, in names."""

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from gcd.report.tables import interval, markdown
from gcd.report.transcripts import MESSAGE_LINES, escape, fence, printable

HOSTILE = [
    "```bash\nls\n```\n## Forged heading\n",
    "`````\n````text\n<script>alert(1)</script>\n```",
    "</details><img src=x onerror=alert(1)>",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "~~~\n# not a heading\n~~~",
    "\u202egnp.exe\x1b[31mred\x1b[0m\x00",
    "\r# after a carriage return\r\n- item",
    "word " * 400,
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_fence_holds_its_text(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"before\n\n{fence(text)}\n\nafter")
    kinds = [token.type for token in tokens]
    paragraph = ["paragraph_open", "inline", "paragraph_close"]
    assert kinds == [*paragraph, "fence", *paragraph]


def test_fence_is_longer_than_any_run_of_backticks() -> None:
    assert fence("ls").startswith("```text\n")
    assert fence("```").startswith("````text\n")
    assert fence("a ````` b").startswith("``````text\n")


def test_long_messages_are_cut_and_say_so() -> None:
    at_limit = "\n".join("x" * MESSAGE_LINES)
    assert "more line" not in fence(at_limit)
    assert fence(at_limit + "\nx").endswith("[1 more line]\n```")


def test_unprintable_characters_become_visible() -> None:
    assert printable("a\x1b[0m\u202eb\x00") == "a\\x1b[0m\\u202eb\\x00"
    assert printable("größe\n") == "größe\n"


@pytest.mark.parametrize("cell", ["a|b", "a\nb", "<b>x</b>", "`a`|`", "a\\|b", "[x](y)", "*x*"])
def test_a_table_cell_stays_one_literal_cell(cell: str) -> None:
    table = markdown(pd.DataFrame([{"one": cell, "two": "x"}]))
    tokens = MarkdownIt("commonmark").enable("table").parse(table)
    cells = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 2
    kinds = {child.type for child in cells[0].children or []}
    assert kinds <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[0].children or [])
    assert shown == cell.replace("\n", " ")


def test_names_with_underscores_stay_readable() -> None:
    assert escape("full_prompt") == "full_prompt"
    assert escape("_x_") == "\\_x\\_"


def test_interval_style() -> None:
    estimate = {"value": 0.6111, "low": 0.4493, "high": 0.7522, "n": 36}
    assert interval(estimate, 100) == "61.1 (44.9-75.2)"
    assert interval(None, 100) == "n/a"
