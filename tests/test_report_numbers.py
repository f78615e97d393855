"""Numbers of the report, computed again from the records with nothing of ours in between.

The report is that of the miniature repository; the records are read as JSON.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.conftest import ROOT

TASK = "os_interaction"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def cell(report: str, section: str, row: str, column: str) -> str:
    """What the first table under the heading `section` has in `row` and `column`."""
    below = report.split(f"\n{section}\n")[1].splitlines()
    first = next(place for place, line in enumerate(below) if line.startswith("| "))
    table = []
    for line in below[first:]:
        if not line.startswith("|"):
            break
        table.append([part.strip().strip("*") for part in line.strip("|").split(" | ")])
    [found] = [line for line in table if line[0] == row]
    return found[table[0].index(column)]


@pytest.fixture(scope="module")
def report(reproduced: Path) -> str:
    return (reproduced / "reports/report.md").read_text()


def number(text: str) -> float:
    """The value before an interval."""
    return float(text.split(" (", maxsplit=1)[0].replace(",", ""))


@pytest.mark.parametrize("row", ["full_prompt", "seqkd"])
def test_ten_numbers_come_out_of_the_records(reproduced: Path, report: str, row: str) -> None:
    folder = reproduced / "reports/episodes" / TASK / row / row
    episodes = lines(folder / "episodes.jsonl")
    turns = [turn for episode in episodes for turn in episode["turns"]]
    replies = lines(folder / "state_replies.jsonl")
    usable = [reply for reply in replies if reply["teacher_action"] is not None]
    agent = json.loads((folder / "agent.json").read_text())
    recalls = lines(folder / "prompt_recall.jsonl")

    results, costs = f"## Results: {TASK}", f"### Costs: {TASK}"
    prompt = agent["prompt_tokens"]
    expected = {
        (results, "Samples"): len(episodes),
        (results, "Success, all (%)"): 100 * fmean(one["score"] >= 1 for one in episodes),
        (results, "Mean score (%)"): 100 * fmean(one["score"] for one in episodes),
        (results, "Valid actions (%)"): 100 * fmean(turn["action"] is not None for turn in turns),
        (results, "Mean turns"): fmean(len(one["turns"]) for one in episodes),
        (results, "Teacher agreement (%)"): 100
        * fmean(one["action"] == one["teacher_action"] for one in usable),
        (results, "Prompt recall (%)"): 100 * fmean(one["edit_similarity"] for one in recalls),
        (costs, "Prompt tokens"): prompt,
        (costs, "Input tokens"): fmean(
            sum(prompt + turn["context_tokens"] for turn in one["turns"]) for one in episodes
        ),
        (costs, "Output tokens"): fmean(
            sum(turn["reply_tokens"] for turn in one["turns"]) for one in episodes
        ),
    }
    for (section, column), value in expected.items():
        shown = number(cell(report, section, row, column))
        assert shown == pytest.approx(value, abs=0.051), (section, column)


def test_what_is_rejected_adds_up(reproduced: Path, report: str) -> None:
    for name in ("inputs", "reasons", "conversations"):
        counts = json.loads((reproduced / f"data/pseudo/{TASK}/{name}_counts.json").read_text())
        kept = len(lines(reproduced / f"data/pseudo/{TASK}/{name}.jsonl"))
        [line] = [
            line.strip("|").split(" | ")
            for line in report.splitlines()
            if line.startswith(f"| {TASK} | {name} |")
        ]
        assert [int(line[2]), int(line[3])] == [kept, sum(counts["rejected"].values())]


@pytest.mark.parametrize("committed", [False, True])
def test_every_table_names_its_source(report: str, committed: bool) -> None:
    text = (ROOT / "reports/report.md").read_text() if committed else report
    blocks = [block for block in text.split("\n\n") if block]
    tables = [place for place, block in enumerate(blocks) if block.startswith("| ")]
    assert len(tables) >= 12
    for place in tables:
        assert blocks[place + 1].startswith("*Source: "), blocks[place].splitlines()[0]


def test_every_source_is_a_file(reproduced: Path, report: str) -> None:
    """Each table of numbers names where they come from, and that is there."""
    sources = [line for line in report.splitlines() if line.startswith("*Source: ")]
    assert len(sources) >= 8
    for line in sources:
        for part in line.split("](")[1:]:
            assert (reproduced / "reports" / part.split(")")[0]).is_file(), line
