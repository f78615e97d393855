"""Transcripts for the report: which samples are shown, and how text of a model is made harmless.

Replies and observations may hold Markdown, HTML, fences or control characters. They go into code
fences longer than any run of backticks in them; unprintable characters are shown as escapes.
"""

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from gcd.core.records import FULL_PROMPT, Episode
from gcd.rows import Row
from gcd.scoring import succeeded

MESSAGE_LINES = 16  # of a message in a transcript, and their width; the records hold the whole
LINE_WIDTH = 96

# A dozen rows side by side are for the page of transcripts, not for a report.
SHOWN = (FULL_PROMPT, "no_prompt", "seqkd", "gcd")

Played = dict[str, Episode]  # {row: its episode of one sample}


@dataclass(frozen=True)
class Rule:
    """Chooses the first sample, in the order of the records, for which `fits` holds."""

    title: str
    rows: tuple[str, ...]  # what `fits` looks at; without these rows the rule chooses nothing
    fits: Callable[[Played], bool]


RULES = [
    Rule(
        "full_prompt and gcd succeed, no_prompt does not",
        (FULL_PROMPT, "gcd", "no_prompt"),
        lambda played: (
            succeeded(played[FULL_PROMPT])
            and succeeded(played["gcd"])
            and not succeeded(played["no_prompt"])
        ),
    ),
    Rule(
        "one of full_prompt and gcd succeeds, the other does not",
        (FULL_PROMPT, "gcd"),
        lambda played: succeeded(played[FULL_PROMPT]) != succeeded(played["gcd"]),
    ),
    Rule(
        "a hard sample",
        (FULL_PROMPT,),
        lambda played: played[FULL_PROMPT].groups.get("tier") == "hard",
    ),
]


def escape(text: str) -> str:
    """`text` as one line of literal Markdown, also inside a table: no mark-up, HTML or math."""
    line = " ".join(printable(text).split())
    return re.sub(
        r"[\\`*\[\]<>|~#$&!@]|(?<![^\W_])_|_(?![^\W_])", lambda match: "\\" + match[0], line
    )


def printable(text: str) -> str:
    """`text` with unprintable characters (escape codes, reversed writing, ...) as escapes."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else " " * 4
        if character == "\t"
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def fence(text: str) -> str:
    """`text` in a code fence that it cannot close; long lines wrapped, long texts cut."""
    lines = [
        part
        for line in printable(text.replace("\r\n", "\n")).split("\n")
        for part in textwrap.wrap(line, LINE_WIDTH, drop_whitespace=False) or [""]
    ]
    if len(lines) > MESSAGE_LINES:
        left = len(lines) - MESSAGE_LINES
        lines = [*lines[:MESSAGE_LINES], f"[{left} more line{'s' if left > 1 else ''}]"]
    body = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}text\n{body}\n{mark}"


def choose_samples(rows: dict[str, Row]) -> list[tuple[Rule, Played | None]]:
    """For each of RULES the first sample that fits and no earlier rule chose; None if none does."""
    episodes = {name: {found.index: found for found in row.episodes} for name, row in rows.items()}
    samples = [
        {name: episodes[name][episode.index] for name in rows}
        for episode in rows[FULL_PROMPT].episodes
    ]
    chosen: list[tuple[Rule, Played | None]] = []
    for rule in RULES:
        taken = [played for _, played in chosen]
        fitting = (
            played
            for played in samples
            if all(name in rows for name in rule.rows) and played not in taken and rule.fits(played)
        )
        chosen.append((rule, next(fitting, None)))
    return chosen


def render_samples(task: str, rows: dict[str, Row]) -> str:
    """The section of one task: each chosen sample, played by those of `rows` in SHOWN, in order."""
    parts = []
    shown = {name: row for name, row in rows.items() if name in SHOWN}
    for rule, played in choose_samples(shown):
        parts.append(f"### {escape(task)}: {rule.title}")
        if played is None:
            parts.append("No sample that is not shown already fits this rule.")
            continue
        first = next(iter(played.values()))
        labels = [f"{name} {value}" for name, value in sorted(first.groups.items())]
        parts.append(f"Sample {escape(', '.join([first.index, *labels]))}:")
        parts.append(fence(first.problem))
        parts += [render_episode(name, episode) for name, episode in played.items()]
    return "\n\n".join(parts)


def render_episode(row: str, episode: Episode) -> str:
    """One episode: its outcome, then its turns, each message in a fence."""
    count = len(episode.turns)
    outcome = f"score {episode.score:g}, {count} turn{'' if count == 1 else 's'}"
    parts = [f"#### {escape(row)}: {outcome}, {escape(episode.status)}"]
    for number, turn in enumerate(episode.turns, start=1):
        cut = "" if turn.complete else ", cut at its token limit"
        valid = "" if turn.action else ", no valid action"
        parts += [f"Agent, turn {number}{cut}{valid}:", fence(turn.reply)]
        if turn.observation is not None:
            parts += ["Environment:", fence(turn.observation)]
    if episode.error is not None:
        parts += ["Error:", fence(episode.error)]
    return "\n\n".join(parts)
