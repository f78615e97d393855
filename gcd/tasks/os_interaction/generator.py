"""Seeded shell tasks in the JSON schema of AgentBench v0.2's OS interaction.

The tasks are small enough for a small language model: easy families need one command, hard ones a
pipeline or a loop. Each sample builds its own files, names a command that solves it, and has
either the answer or a script that accepts the right state only.
"""

import random
from collections.abc import Callable
from typing import Any

from gcd.core.errors import UserError
from gcd.tasks.os_interaction.families_hard import (
    ADJECTIVES,
    HARD_FAMILIES,
    NOUNS,
    Sample,
    change,
    fixture,
    new_directory,
    new_files,
    phrase,
    phrases,
    question,
    short_tree,
    state_check,
)

# After 1,000 draws without a new sample at least 99 % of a family's descriptions are taken.
DRAWS = 1000


def _count_files(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    paths = new_files(rng, directory, rng.randint(2, 9))
    asked = rng.choice(
        [
            f"How many files are in the directory {directory}?",
            f"How many files does the directory {directory} hold?",
        ]
    )
    init = fixture(short_tree(rng, paths))
    return question(asked, init, str(len(paths)), f"ls {directory} | wc -l")


def _text_file(rng: random.Random, lines: list[str]) -> tuple[str, str]:
    """The path of one file with these lines, and the script that writes it."""
    path = new_files(rng, new_directory(rng), 1)[0]
    return path, fixture({path: lines})


def _count_lines(rng: random.Random) -> Sample:
    lines = phrases(rng, rng.randint(2, 12))
    path, init = _text_file(rng, lines)
    asked = rng.choice(
        [
            f"How many lines are in the file {path}?",
            f"How many lines does the file {path} have?",
        ]
    )
    return question(asked, init, str(len(lines)), f"wc -l < {path}")


def _first_line(rng: random.Random) -> Sample:
    lines = phrases(rng, rng.randint(2, 12))
    path, init = _text_file(rng, lines)
    asked = rng.choice(
        [
            f"What is the first line of the file {path}?",
            f"What is the first line of {path}?",
        ]
    )
    return question(asked, init, lines[0], f"head -n 1 {path}")


def _last_line(rng: random.Random) -> Sample:
    lines = phrases(rng, rng.randint(2, 12))
    path, init = _text_file(rng, lines)
    asked = rng.choice(
        [
            f"What is the last line of the file {path}?",
            f"What is the last line of {path}?",
        ]
    )
    return question(asked, init, lines[-1], f"tail -n 1 {path}")


def _read_file(rng: random.Random) -> Sample:
    text = rng.choice([phrase(rng), rng.choice(NOUNS)])
    path, init = _text_file(rng, [text])
    asked = rng.choice(
        [
            f"What is written in the file {path}?",
            f"What is written in {path}?",
        ]
    )
    return question(asked, init, text, f"cat {path}")


def _create_file(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    path, *others = new_files(rng, directory, rng.randint(2, 5))
    tree = short_tree(rng, others)
    asked = rng.choice(
        [
            f"Create an empty file {path}.",
            f"Create the empty file {path}.",
        ]
    )
    return change(asked, fixture(tree), state_check(directory, {**tree, path: []}), f"touch {path}")


def _delete_file(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    paths = new_files(rng, directory, rng.randint(2, 6))
    tree = short_tree(rng, paths)
    path = rng.choice(paths)
    kept = {other: lines for other, lines in tree.items() if other != path}
    asked = rng.choice(
        [
            f"Delete the file {path}.",
            f"Delete {path}.",
        ]
    )
    return change(asked, fixture(tree), state_check(directory, kept), f"rm {path}")


def _make_directory(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    tree = short_tree(rng, new_files(rng, directory, rng.randint(1, 4)))
    # Adjectives name no file here, so the new name is always free.
    path = f"{directory}/{rng.choice(ADJECTIVES)}"
    asked = rng.choice(
        [
            f"Make a directory {path}.",
            f"Make the directory {path}.",
        ]
    )
    return change(
        asked, fixture(tree), state_check(directory, tree, folders=(path,)), f"mkdir {path}"
    )


FAMILIES: dict[str, tuple[str, Callable[[random.Random], dict[str, Any]]]] = {
    "count_files": ("easy", _count_files),
    "count_lines": ("easy", _count_lines),
    "first_line": ("easy", _first_line),
    "last_line": ("easy", _last_line),
    "read_file": ("easy", _read_file),
    "create_file": ("easy", _create_file),
    "delete_file": ("easy", _delete_file),
    "make_directory": ("easy", _make_directory),
    **HARD_FAMILIES,
}


def generate(seed: str, count: int, taken: set[str]) -> list[dict[str, Any]]:
    """Samples whose descriptions differ, interleaved and balanced over the families.

    Args:
        seed: any text; the same text gives the same samples, and a smaller count a prefix of them.
        count: how many; the first `count % len(FAMILIES)` families have one more than the others.
        taken: descriptions that none of the samples may have.

    Raises:
        UserError: a family has no description left.
    """
    names = list(FAMILIES)
    seen = set(taken)
    samples = []
    for position in range(count):
        number, index = divmod(position, len(names))
        family = names[index]
        tier, draw = FAMILIES[family]
        rng = random.Random(f"{seed}/{family}/{number}")
        sample = next(
            (
                sample
                for sample in (draw(rng) for _ in range(DRAWS))
                if sample["description"] not in seen
            ),
            None,
        )
        if sample is None:
            raise UserError(
                f"{DRAWS} draws gave no new `{family}` sample after {position} samples. Lower the "
                "counts under `tasks.os_interaction` in params.yaml."
            )
        seen.add(sample["description"])
        samples.append({**sample, "labels": [tier, family]})
    return samples
