"""Actions are parsed and answers judged as AgentBench does."""

from typing import Any

import pytest

from gcd.tasks import os_interaction
from gcd.tasks.os_interaction import parse_action
from gcd.tasks.os_interaction.judging import matches, native_check

# Parsing.


@pytest.mark.parametrize(
    ("reply", "kind", "content"),
    [
        ("Think: a\n\nAct: answer(220)", "answer", "220"),
        ("Act: finish", "finish", None),
        ("Act: Finish it now", "finish", None),
        ("Act: Answer( 3 )", "answer", " 3 "),
        ("Act: answer(f(x) and (y))", "answer", "f(x) and (y)"),
        ("Act: answer()", "answer", ""),
        ("Act: answered(5)", "answer", "5"),
        ("Act: BASH\n```bash\nls\n```", "bash", "ls"),
        ("Act: bash\n\n```bash\nls\n```\nand\n```bash\npwd\nid\n```", "bash", "ls\n\npwd\nid"),
        ("```bash\nls\n```\nAct: bash", "bash", "ls"),
        ("Act: bash\n```sh\nls\n```", "bash", ""),
        ("Act: bash\n```bash\n```", "bash", ""),
        ("Act: bash\n```bash\nls", "bash", ""),
        ("Act:\n\n  bash\n```bash\nls\n```", "bash", "ls"),
        ("Act: answer(1)\nAct: bash\n```bash\nls\n```", "bash", "ls"),
        ("Act: bash\n```bash\nls\n```\nAct: answer(2)", "answer", "2"),
        ("Act: answer(5)\nAct: answer", "answer", "5"),
        ("Act: answer(5)\nAct: nothing", "answer", "5"),
    ],
)
def test_the_last_valid_act_line_decides(reply: str, kind: str, content: str | None) -> None:
    action = parse_action(reply)
    assert action is not None
    assert (action.kind, action.content) == (kind, content)
    assert os_interaction.is_final(action) == (kind != "bash")


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Hello.",
        "act: bash",
        "Action: bash",
        "Act: answer 5",
        "Act: answer)5(x",
        "Act: ls",
        "Act:",
    ],
)
def test_no_action(reply: str) -> None:
    # ")5(" has both brackets, and nothing between them: AgentBench's slice is then empty.
    action = parse_action(reply)
    assert action is None or action.content == ""


# Judging.


@pytest.mark.parametrize(
    ("name", "answer", "expected", "passes"),
    [
        ("integer-match", "8", "8\n", True),
        ("integer-match", " 08 ", "8", True),
        ("integer-match", "8 files", "8", False),
        ("integer-match", "", "", False),
        ("integer-match", "None", "None", False),
        ("string-match", " a\r\nb ", "a\nb\n", True),
        ("string-match", "A", "a", False),
        ("containing", "the word is walnut", "walnut\n", True),
        ("containing", "walnut", "the word is walnut", False),
        ("in", "walnut", "the word is walnut", True),
        ("in", "the word is walnut", "walnut", False),
        ("size-match", "4K", "4096\n", True),
        ("size-match", "2M", "2048K", True),
        ("size-match", "1G", "1024M", True),
        ("size-match", "7Byte", "7B", True),
        ("size-match", "4.0K", "4.0K\n", False),  # no whole number: the script fails on it
        ("size-match", "4KB", "4KB", False),  # read as "4K" bytes: the script fails on it
        ("size-match", "4k", "4K", False),
    ],
)
def test_native_checks_are_agentbenchs(name: str, answer: Any, expected: str, passes: bool) -> None:
    assert native_check(name, answer, expected) is passes


@pytest.mark.parametrize(
    ("answer", "match", "passes"),
    [
        (" walnut ", "walnut", True),
        ("Walnut", "walnut", False),
        (None, "None", False),
        (" a ", {"answer": "a", "strip": False}, False),
        (" a ", {"answer": "a"}, True),
        ("it is 12 h", {"regex": r"\d+", "strip": True}, True),
        ("none", {"regex": r"\d+"}, False),
    ],
)
def test_match(answer: Any, match: Any, passes: bool) -> None:
    assert matches(answer, match) is passes
