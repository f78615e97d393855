"""The page of transcripts as it is written: what it holds, what it cuts, what it lets run."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from ruamel.yaml import YAML

from gcd.core.records import FULL_PROMPT, Action, AgentRecord, Episode, Turn
from gcd.report.results import TaskResults
from gcd.report.transcript_page import Texts, embed, explain, page_data, render_page, write_page
from gcd.rows import Row
from tests.conftest import ROOT
from tests.test_report_text import HOSTILE

LS = Action(kind="bash", content="ls")
ANSWER = Action(kind="answer", content="4")


def turn(
    action: Action | None, reply: str = "r", *, complete: bool = True, seen: str | None = None
):
    return Turn(
        reply=reply,
        context_tokens=1,
        reply_tokens=1,
        complete=complete,
        continues=False,
        action=action,
        observation=seen,
    )


def episode(status: str, score: float, turns: list[Turn], **fields: Any) -> Episode:
    plain = {
        "task": "os",
        "row": "gcd",
        "index": "s-0",
        "groups": {"tier": "easy"},
        "problem": "How many?",
        "measures": {},
        "details": {},
        "prompt_tokens": 0,
        "error": None,
    }
    return Episode(status=status, score=score, turns=turns, **{**plain, **fields})


def results(
    task: str, played: dict[str, list[Episode]], failures: dict[str, str] | None = None
) -> TaskResults:
    """`failures` are shown behind the rows that played."""
    failed = failures or {}
    records = {
        row: Row(
            method=row,
            agent=AgentRecord(
                row=row,
                deployment="base",
                prompt_tokens=0,
                adapter_parameters=0,
                bytes_to_ship=0,
            ),
            episodes=episodes,
            state_replies=[],
            recall=[],
        )
        for row, episodes in played.items()
    }
    return TaskResults(task, [*played, *failed], records, failed, {}, {}, {}, {})


WHY = [
    # Solved counts, however it ended; a turn without an action is said nevertheless.
    ("completed", 1.0, [turn(LS), turn(ANSWER)], "success", "Solved."),
    (
        "completed",
        1.0,
        [turn(None), turn(ANSWER)],
        "success",
        "Solved. 1 of 2 turns held no valid action.",
    ),
    ("completed", 0.5, [turn(ANSWER)], "partly_right", "The result was judged right in part."),
    ("completed", 0.0, [turn(ANSWER)], "wrong", "The result was judged wrong."),
    (
        "completed",
        0.0,
        [turn(None)],
        "wrong",
        "The result was judged wrong. 1 of 1 turn held no valid action.",
    ),
    (
        "agent invalid action",
        0.0,
        [turn(LS), turn(None)],
        "no_valid_action",
        "The last reply held no valid action.",
    ),
    (
        "agent validation failed",
        0.0,
        [turn(None, complete=False)],
        "no_valid_action",
        "The last reply, which was cut at its token limit, held no valid action.",
    ),
    # Browsing: "none of the above" is an action, but chooses nothing.
    (
        "agent invalid action",
        0.0,
        [turn(Action(kind="A", content=None))],
        "wrong",
        "The actions led to no result.",
    ),
    (
        "task limit reached",
        0.0,
        [turn(LS), turn(ANSWER), turn(LS)],
        "out_of_turns",
        "No result after 3 turns, 2 of them with the same action.",
    ),
    ("task limit reached", 0.0, [turn(LS)], "out_of_turns", "No result after 1 turn."),
    (
        "agent context limit",
        0.0,
        [turn(LS), turn(LS)],
        "context_limit",
        "The conversation did not fit the agent's context after 2 turns.",
    ),
    (
        "agent context limit",
        0.0,
        [],
        "context_limit",
        "The conversation did not fit the agent's context.",
    ),
    ("unknown", 0.0, [], "broken", "The sample could not be started."),
    ("task error", 0.0, [turn(LS)], "broken", "The environment broke."),
    ("cancelled", 0.0, [turn(LS)], "broken", "The episode was not played to its end."),
]


@pytest.mark.parametrize(("status", "score", "turns", "outcome", "why"), WHY)
def test_why_an_episode_came_to_what_it_did(status, score, turns, outcome, why) -> None:
    assert explain(episode(status, score, turns)) == (outcome, why)


def test_the_filter_offers_every_outcome() -> None:
    page = html.fromstring(render_page(page_data([], 10)))
    offered = {option.get("value") for option in page.get_element_by_id("outcome")}
    assert offered == {"", "differs", "failed", *(outcome for *_, outcome, _ in WHY)}


def test_every_message_is_there_in_its_order() -> None:
    turns = [turn(LS, "first", seen="seen"), turn(None, "second", complete=False)]
    one = episode("task error", 0.25, turns, error="boom", measures={"f1": 0.5})
    data = page_data([results("os", {FULL_PROMPT: [one]}, {"icae": "nan"})], 100)
    texts = [text for text, _ in data["texts"]]
    assert sorted(texts) == ["How many?", "boom", "first", "ls", "nan", "second", "seen"]
    [task] = data["tasks"]
    assert task == {
        "name": "os",
        "rows": [
            {
                "name": FULL_PROMPT,
                "file": "reports/episodes/os/full_prompt/full_prompt/episodes.jsonl",
                "failure": None,
            },
            {"name": "icae", "file": None, "failure": texts.index("nan")},
        ],
        "samples": [
            {
                "index": "s-0",
                "groups": {"tier": "easy"},
                "problem": texts.index("How many?"),
                "episodes": [
                    {
                        "outcome": "broken",
                        "why": "The environment broke. 1 of 2 turns held no valid action.",
                        "status": "task error",
                        "score": 0.25,
                        "measures": {"f1": 0.5},
                        "error": texts.index("boom"),
                        "turns": [
                            {
                                "reply": texts.index("first"),
                                "complete": True,
                                "action": "bash",
                                "content": texts.index("ls"),
                                "observation": texts.index("seen"),
                            },
                            {
                                "reply": texts.index("second"),
                                "complete": False,
                                "action": None,
                                "content": None,
                                "observation": None,
                            },
                        ],
                    },
                    None,
                ],
            }
        ],
    }


def test_long_messages_are_cut_and_equal_ones_stored_once() -> None:
    texts = Texts(4)
    assert [texts.add(text) for text in ("abcd", "abcde", "abcdf", "abcd", "abcdef")] == [
        0,
        1,
        1,  # shown alike: four characters, one cut
        0,
        2,
    ]
    assert texts.stored == [("abcd", 0), ("abcd", 1), ("abcd", 2)]
    # Cut first, then made printable: no escape is cut in two.
    texts.add("abc\x1b[0m")
    assert texts.stored[-1] == ("abc\\x1b", 3)


def test_embedded_json_cannot_end_its_element_and_loses_nothing() -> None:
    data = {"</script><!--": [*HOSTILE, "&amp;", "a\u2028b\u2029c", "größe"]}
    text = embed(data)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == data


def test_only_the_pages_own_script_and_style_may_be_used(tmp_path: Path) -> None:
    write_page([results("os", {FULL_PROMPT: [episode("completed", 1.0, [])]})], 10, tmp_path / "p")
    text = (tmp_path / "p").read_text(encoding="utf-8")
    page = html.fromstring(text)
    [policy] = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind in ("script", "style"):
        [source] = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = hashlib.sha256(source.encode()).digest()
        assert rules[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert not page.xpath("//@style | //@src | //@onclick | //link")
    assert set(page.xpath("//@href")) == {"#", "report.html"}
    assert page.xpath("//noscript")


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        one = episode("completed", 1.0, [turn(ANSWER)])
        write_page([results("os", {FULL_PROMPT: [one]})], 10, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_dvc_watches_what_the_page_is_made_of() -> None:
    report = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["report"]
    assert "gcd/report" in report["deps"]
    assert {"reports/transcripts.html": {"cache": False}} in report["outs"]
