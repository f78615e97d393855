"""reports/transcripts.html: every episode of every row, to browse and to search.

One file that needs no network. The records are embedded as JSON, and the page's script
(`pages/transcripts.js`) puts them on the page as text: no reply, observation or error is ever read
as HTML. An episode's token counts and `details` are left out, and long messages are cut.
"""

import json
from collections import Counter
from pathlib import Path
from string import Template
from typing import Any

from gcd.core.records import Episode, Turn, write_text
from gcd.report.page import PAGES, source_hash
from gcd.report.results import TaskResults
from gcd.report.transcripts import printable
from gcd.scoring import succeeded

# What could end a script element, or begin another; U+2028 and U+2029 end a line of a script.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def explain(episode: Episode) -> tuple[str, str]:
    """What an episode came to, as the page's filter has it, and why; quotes nothing from a model.

    The outcome is "success", "partly_right" (a score between 0 and 1), "wrong", "no_valid_action",
    "out_of_turns", "context_limit" or "broken" (by the sample or its environment).
    """
    outcome, why = _outcome(episode)
    invalid = sum(turn.action is None for turn in episode.turns)
    if invalid and outcome != "no_valid_action":
        why += f" {invalid} of {_count(episode.turns)} held no valid action."
    return outcome, why


def _outcome(episode: Episode) -> tuple[str, str]:
    turns = episode.turns
    silent = bool(turns) and turns[-1].action is None
    match episode.status:
        case _ if succeeded(episode):
            told = "success", "Solved."
        case "completed" if episode.score > 0:
            told = "partly_right", "The result was judged right in part."
        case "completed":
            told = "wrong", "The result was judged wrong."
        case "agent invalid action" | "agent validation failed" if silent:
            cut = "" if turns[-1].complete else ", which was cut at its token limit,"
            told = "no_valid_action", f"The last reply{cut} held no valid action."
        case "agent invalid action" | "agent validation failed":
            told = "wrong", "The actions led to no result."  # browsing: all elements turned down
        case "task limit reached":
            told = "out_of_turns", f"No result after {_count(turns)}{_repeated(turns)}."
        case "agent context limit":
            after = f" after {_count(turns)}" if turns else ""
            told = "context_limit", f"The conversation did not fit the agent's context{after}."
        case "unknown":
            told = "broken", "The sample could not be started."
        case "task error":
            told = "broken", "The environment broke."
        case _:
            told = "broken", "The episode was not played to its end."
    return told


def _count(turns: list[Turn]) -> str:
    return f"{len(turns)} turn{'' if len(turns) == 1 else 's'}"


def _repeated(turns: list[Turn]) -> str:
    """How often the most frequent action was taken, where that is more than once."""
    taken = Counter(turn.action.model_dump_json() for turn in turns if turn.action)
    most = max(taken.values(), default=0)
    return f", {most} of them with the same action" if most > 1 else ""


class Texts:
    """The page's messages, each stored once, printable, cut after `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[tuple[str, int], int] = {}

    def add(self, text: str) -> int:
        """The message's place in `stored`."""
        shown = printable(text[: self._limit].replace("\r\n", "\n"))
        return self._places.setdefault((shown, max(0, len(text) - self._limit)), len(self._places))

    @property
    def stored(self) -> list[tuple[str, int]]:
        """Each message as it is shown, and how many characters were cut off it."""
        return list(self._places)


def page_data(results: list[TaskResults], characters: int) -> dict[str, Any]:
    """What the page shows, as JSON values; messages are places in "texts".

    A sample's "episodes" are in the order of its task's "rows", None where the row failed.
    """
    texts = Texts(characters)
    tasks = [_task(found, texts) for found in results]
    return {"tasks": tasks, "texts": texts.stored}


def _task(found: TaskResults, texts: Texts) -> dict[str, Any]:
    episodes = {
        row: {episode.index: episode for episode in found.records[row].episodes}
        for row in found.played
    }
    rows = []
    for row in found.rows:
        failure = found.failures.get(row)
        method = None if failure is not None else found.records[row].method
        file = f"reports/episodes/{found.task}/{method}/{row}/episodes.jsonl"
        rows.append(
            {
                "name": printable(row),
                "file": None if method is None else printable(file),
                "failure": None if failure is None else texts.add(failure),
            }
        )
    first = next(iter(episodes.values()))
    samples = [
        {
            "index": printable(index),
            "groups": {printable(name): printable(value) for name, value in one.groups.items()},
            "problem": texts.add(one.problem),
            "episodes": [
                _episode(episodes[row][index], texts) if row in episodes else None
                for row in found.rows
            ],
        }
        for index, one in first.items()
    ]
    return {"name": printable(found.task), "rows": rows, "samples": samples}


def _episode(episode: Episode, texts: Texts) -> dict[str, Any]:
    outcome, why = explain(episode)
    return {
        "outcome": outcome,
        "why": why,
        "status": printable(episode.status),
        "score": episode.score,
        "measures": {printable(name): value for name, value in episode.measures.items()},
        "error": None if episode.error is None else texts.add(episode.error),
        "turns": [_turn(turn, texts) for turn in episode.turns],
    }


def _turn(turn: Turn, texts: Texts) -> dict[str, Any]:
    content = turn.action.content if turn.action else None
    return {
        "reply": texts.add(turn.reply),
        "complete": turn.complete,
        "action": printable(turn.action.kind) if turn.action else None,
        "content": None if content is None else texts.add(content),
        "observation": None if turn.observation is None else texts.add(turn.observation),
    }


def embed(data: Any) -> str:
    """`data` as JSON that no HTML parser takes for anything but text."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(ESCAPES)


def render_page(data: dict[str, Any]) -> str:
    """The whole page. Its policy lets nothing run but its one script, and nothing be fetched."""
    page, style, script = (
        (PAGES / f"transcripts.{kind}").read_text(encoding="utf-8")
        for kind in ("html", "css", "js")
    )
    return Template(page).substitute(
        style=style,
        style_hash=source_hash(style),
        script=script,
        script_hash=source_hash(script),
        data=embed(data),
    )


def write_page(results: list[TaskResults], characters: int, path: Path) -> None:
    """Write the page; messages are cut after `characters`."""
    write_text(path, render_page(page_data(results, characters)))
