"""Web browsing against what AgentBench v0.2's Mind2Web task answers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pytest

from gcd.tasks.web_browsing.page import ATTRIBUTES, parse_page, view_page
from gcd.tasks.web_browsing.scoring import Prediction, Target, action_f1, overall, score_step
from gcd.tasks.web_browsing.tournament import NONE_OF_THE_ABOVE, ask, parse_letter, parse_operation

RealData = Callable[..., Path]
Tally = Callable[..., None]


@pytest.fixture
def oracle(realdata: RealData) -> Any:
    return json.loads(realdata("mind2web", "oracle", "scoring_examples.json").read_text())


def test_answer_parsing(oracle: Any, tally: Tally):
    """Replies, and targets, of which only the operation is parsed."""
    results = []
    for place, case in enumerate(oracle["postprocess"]):
        letter = parse_letter(case["raw"]) or NONE_OF_THE_ABOVE
        operation = parse_operation(case["raw"])
        # The original cannot read the letter of an empty target.
        wanted = case["target"] or ["", operation]
        same = [letter, operation] == case["llm"] and operation == wanted[1]
        results.append((f"{place} {case['raw']!r}", same))
    tally("web browsing, answer parsing", results)


def test_action_f1(oracle: Any, tally: Tally):
    results = [
        (f"{place} {case}", abs(action_f1(case["pred"], case["label"]) - case["f1"]) < 1e-12)
        for place, case in enumerate(oracle["f1"])
    ]
    tally("web browsing, action F1", results)


def test_batch_metrics(oracle: Any, tally: Tally):
    steps = [
        score_step(
            case["final_prediction"] and Prediction(*case["final_prediction"]),
            case["target"] and Target(case["target"]["element"], case["target"]["action"]),
        )
        for case in oracle["metric_batch"]
    ]
    ours = overall(steps)
    wanted = oracle["metric_overall"]
    tally(
        "web browsing, batch metrics",
        {name: abs(ours[name] - wanted[name]) < 1e-9 for name in wanted},
    )


def questions(realdata: RealData) -> list[tuple[str, str]]:
    """(place, text) of every question in the benchmark's own prompts."""
    found = []
    for path in sorted(realdata("mind2web", "agentbench_v0.2").glob("llm_prompt*.json")):
        for place, message in enumerate(json.loads(path.read_text())):
            if message["role"] == "user" and message["content"]:
                found.append((f"{path.name} {place}", message["content"]))
    return found


LAYOUT = re.compile(
    r"'''\n(?P<page>.*)\n'''\n\n.*\nTask: (?P<task>.*)\nPrevious actions:\n(?P<previous>(?:.*\n)+?)"
    r".*\n\nA\. None of the above\n(?P<choices>(?:[B-F]\. .*\n?)*)"
)


def split_question(text: str) -> tuple[str, str, list[str], list[str]]:
    """Page, task, previous actions and choices; the two lines of prose are left out."""
    match = LAYOUT.fullmatch(text)
    assert match is not None, text
    previous = match["previous"].strip("\n").split("\n")
    choices = [line[3:] for line in match["choices"].strip("\n").split("\n")]
    return match["page"], match["task"], [] if previous == ["None"] else previous, choices


def test_question_layout(realdata: RealData, tally: Tally):
    """Everything but the prose stands in our question where it stands in the original's."""
    results = []
    for name, text in questions(realdata):
        parts = split_question(text)
        ours = ask(*parts)
        prose = [
            (line, other)
            for line, other in zip(text.split("\n"), ours.split("\n"), strict=True)
            if line != other
        ]
        results.append((name, split_question(ours) == parts and len(prose) == 2))
    tally("web browsing, question layout", results)


def test_page_snippets(realdata: RealData, tally: Tally):
    """The pages of the prompts, put back into Mind2Web's form, are shown as they stand there."""
    results = []
    for name, text in questions(realdata):
        page, _, _, choices = split_question(text)
        xml, candidates = as_cleaned_html(page)
        view = view_page(parse_page(xml), candidates)
        shown = [choice for _, choice in view.choices]
        results.append((name, (view.text, shown) == (page, choices)))
    tally("web browsing, page snippets", results)


def as_cleaned_html(flat: str) -> tuple[str, list[str]]:
    """A page that shows as `flat`, and its candidates.

    The names of attributes are lost in `flat`: their words are dealt out to the attributes that
    are shown, in their order, so that none gets more than five or equals another.
    """
    candidates: list[str] = []
    written: list[str] = []
    for number, part in enumerate(re.findall(r"<[^>]+>|[^<]+", flat)):
        if not part.startswith("<"):
            text = f'<text backend_node_id="{number}">{escape(part.strip())}</text>'
            written.append(f" {text} " if part.strip() else part)
        elif part.startswith("</"):
            written.append(part)
        else:
            tag, *words = part.strip("<>").removesuffix("/").split()
            node_id = str(number)
            if words and re.fullmatch(r"id=\d+", words[0]):
                candidates.append(node_id)
                words = words[1:]
            pieces = [" ".join(words[start : start + 5]) for start in range(0, len(words), 5)]
            named = zip(ATTRIBUTES, pieces, strict=False)
            attributes = "".join(f" {name}={quoteattr(piece)}" for name, piece in named)
            end = "/>" if part.endswith("/>") else ">"
            written.append(f'<{tag} backend_node_id="{node_id}"{attributes}{end}')
    return "".join(written), candidates
