"""FORMAT: a regular expression or a JSON Schema, and what is wrong with a bad one."""

from hashlib import sha256
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.prompt import parse_prompt
from gcd.internalize.checks import check, read_prompt_file
from gcd.internalize.formats import Format, read_format
from gcd.internalize.settings import read_settings
from tests.conftest import ROOT
from tests.test_internalize_checks import LIMITS


@pytest.mark.parametrize(
    ("text", "reply", "holds"),
    [
        ("Yes|No", " Yes\n", True),
        ("Yes|No", "Yes, of course", False),  # the whole reply
        ("(?s)Answer:.*", "Answer:\nx", True),
        ("(a+)+b", "a" * 60, False),  # backtracks for ever
    ],
)
def test_patterns(text: str, reply: str, holds: bool) -> None:
    assert Format("regular expression", text).holds(reply) is holds


@pytest.mark.parametrize(
    ("reply", "holds"),
    [
        ('{"topic": "order", "action": "answer", "reply": "It is on its way."}', True),
        (' {"reply": "x", "topic": "order",\n"action": "ask"} ', True),
        ('{"topic": "order", "action": "answer"}', False),
        ('{"topic": "orders", "action": "answer", "reply": "x"}', False),
        ('{"topic": "order", "action": "answer", "reply": ""}', False),
        ('{"topic": "order", "action": "answer", "reply": "x", "more": 1}', False),
        ('{"topic": "order", "action": "answer", "reply": "x"', False),
        ('{"topic": "order", "action": "answer", "reply": "x"} Bye.', False),
        ("NaN", False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_the_examples_schema(reply: str, holds: bool) -> None:
    assert read_format(ROOT / "examples/support/format.json").holds(reply) is holds


def test_the_examples_demonstrations_have_its_format() -> None:
    path = ROOT / "examples/support/prompt.md"
    format = read_format(path.with_name("format.json"))
    turns = parse_prompt(
        read_prompt_file(path, read_settings(ROOT / "internalize.yaml").prompt), ""
    )
    shown = [turn.content for turn in turns if turn.role == "assistant"]
    assert len(shown) >= 6
    assert all(map(format.holds, shown))


def test_the_examples_report_is_of_its_prompt() -> None:
    """Whoever edits the example runs it again."""
    folder = ROOT / "examples/support"
    digest = sha256((folder / "prompt.md").read_bytes()).hexdigest()
    for name in ("report.md", "report.html"):
        assert digest in (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", r"empty"),
        ("a.json", b"{", r"expected a JSON Schema, and it is no JSON"),
        ("a.json", b'{"type": "texts"}', r"expected a JSON Schema: 'texts' is not valid"),
        ("a.json", b'{"$ref": "https://example.org/x"}', r"refers to another document, https"),
        ("a.txt", b"(a", r"expected a regular expression: missing \)"),
        ("a.txt", b"\xff", r"not UTF-8"),
    ],
)
def test_bad_formats(prompt: Path, name: str, content: bytes, message: str) -> None:
    path = prompt.parent / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        check(prompt, LIMITS, format=path)
