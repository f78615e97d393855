"""The building blocks of generated shell tasks, and the hard families: a pipeline or a loop."""

import random
from collections.abc import Callable
from pathlib import PurePosixPath
from shlex import quote
from typing import Any

Sample = dict[str, Any]
Tree = dict[str, list[str]]  # path of a file -> its lines


def _words(text: str) -> list[str]:
    """Thirty words on three lines are easier to read than on thirty."""
    return text.split()


WORDS = _words(
    "reports notes archive backup drafts images letters orders invoices plans recipes samples "
    "tickets audio budget charts events exports garden journal lessons maps music papers photos "
    "projects results stories travel weather"
)
ADJECTIVES = _words(
    "amber brave calm dusty eager fancy gentle happy icy jolly kind lively merry noble olive proud "
    "quiet rapid silver tidy vivid warm yellow young bright clever golden hidden lucky purple"
)
NOUNS = _words(
    "falcon anchor basket candle dragon engine forest guitar hammer island jacket kettle ladder "
    "mirror needle orange pencil rabbit saddle teapot tiger tunnel valley violin walnut window "
    "bridge castle pigeon rocket"
)
USERS = _words("alice bruno carla david elena felix grace henry irene jonas karen louis mira nadia")
EXTENSIONS = ("txt", "log", "csv", "dat")


def new_directory(rng: random.Random) -> str:
    """A directory that exists in no fresh root, so that a fixture owns all of it."""
    parents = ("/data", "/srv", "/opt", f"/home/{rng.choice(USERS)}", "/var/lib", "/etc")
    return f"{rng.choice(parents)}/{rng.choice(WORDS)}"


def phrase(rng: random.Random) -> str:
    """Two plain words: easy to copy."""
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def phrases(rng: random.Random, count: int) -> list[str]:
    """Lines that all differ: nouns are drawn without replacement."""
    return [f"{rng.choice(ADJECTIVES)} {noun}" for noun in rng.sample(NOUNS, count)]


def new_files(rng: random.Random, directory: str, count: int) -> list[str]:
    """Paths with distinct stems, so that no change of an extension makes two of them meet."""
    return [f"{directory}/{noun}.{rng.choice(EXTENSIONS)}" for noun in rng.sample(NOUNS, count)]


def short_tree(rng: random.Random, paths: list[str]) -> Tree:
    """One line of text for each path."""
    return {path: [phrase(rng)] for path in paths}


def fixture(tree: Tree) -> str:
    """The script that writes the files; every directory is the parent of some file."""
    parents = sorted({str(PurePosixPath(path).parent) for path in tree})
    script = [f"mkdir -p {quote(parent)}" for parent in parents]
    for path, lines in tree.items():
        values = " ".join(quote(line) for line in lines)
        script.append(f"printf '%s\\n' {values} > {quote(path)}")
    return "\n".join(script)


def state_check(
    directory: str,
    tree: Tree,
    *,
    folders: tuple[str, ...] = (),
    modes: dict[str, str] | None = None,
) -> str:
    """A script that passes only if the directory holds exactly these files and folders.

    Types and sizes are compared in one listing, which also catches what should not be there; then
    each file's text. Permissions are compared only where given: elsewhere the umask decides them.
    """
    listing = [f"d {folder}" for folder in (directory, *folders)]
    listing += [f"f {sum(len(line) + 1 for line in tree[path])} {path}" for path in tree]
    expected = " ".join(quote(line) for line in sorted(listing))
    found = f"find {quote(directory)} -type d -printf 'd %p\\n' -o -printf '%y %s %p\\n'"
    script = [f"expected=$(printf '%s\\n' {expected})", f"actual=$({found} | LC_ALL=C sort)"]
    script.append('[ "$actual" = "$expected" ] || exit 1')
    for path, lines in tree.items():
        if lines:
            text = quote("\n".join(lines))
            script.append(f'[ "$(cat {quote(path)})" = {text} ] || exit 1')
    for path, mode in (modes or {}).items():
        script.append(f"[ \"$(stat -c '%a' {quote(path)})\" = {quote(mode)} ] || exit 1")
    return "\n".join([*script, "exit 0"])


def question(description: str, init: str, answer: str, example: str) -> Sample:
    """A task that is solved by this answer; the example command prints it."""
    evaluation = {"match": answer, "example": {"code": example}}
    return {
        "description": description,
        "create": {"init": {"code": init}},
        "evaluation": evaluation,
    }


def change(description: str, init: str, check: str, example: str) -> Sample:
    """A task that is solved by a state; the example command brings it about."""
    evaluation = {"check": {"code": check}, "example": {"code": example}}
    return {
        "description": description,
        "create": {"init": {"code": init}},
        "evaluation": evaluation,
    }


def _sum_column(rng: random.Random) -> Sample:
    path = f"{new_directory(rng)}/{rng.choice(NOUNS)}.csv"
    items = rng.sample(NOUNS, rng.randint(4, 9))
    amounts = [rng.randint(2, 60) for _ in items]
    rows = [f"{i},{a},{rng.randint(1, 9)}" for i, a in zip(items, amounts, strict=True)]
    asked = rng.choice(
        [
            f"What is the sum of the 2nd column of the CSV file {path}?",
            f"Add up the 2nd column of the CSV file {path}. What is the sum?",
            f"Tell me the sum of all numbers in the 2nd column of the CSV file {path}.",
        ]
    )
    example = f"awk -F, '{{sum += $2}} END {{print sum}}' {path}"
    return question(asked, fixture({path: rows}), str(sum(amounts)), example)


def _count_matching(rng: random.Random) -> Sample:
    path = f"{new_directory(rng)}/{rng.choice(NOUNS)}.log"
    levels = ["ERROR", "WARNING", "INFO", "DEBUG"]
    level = rng.choice(levels)
    count = rng.randint(2, 9)
    kept = [other for other in levels if other != level]
    lines = [f"{level} {phrase(rng)}" for _ in range(count)]
    lines += [f"{rng.choice(kept)} {phrase(rng)}" for _ in range(rng.randint(2, 6))]
    # The same word in lower case: a search that ignores case counts too many.
    lines += [f"{rng.choice(kept)} no {level.lower()} here" for _ in range(rng.randint(1, 3))]
    rng.shuffle(lines)
    asked = rng.choice(
        [
            f"How many lines of the log {path} contain the word {level} in capital letters?",
            f"Count the lines in the log {path} that contain {level}, exactly in upper case.",
            f"Tell me how many lines of {path} contain {level}. Upper case only.",
        ]
    )
    return question(asked, fixture({path: lines}), str(count), f"grep -c {level} {path}")


def _count_by_extension(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    folders = ["", *[f"{name}/" for name in rng.sample(ADJECTIVES, 3)]]
    folders.append(f"{folders[-1]}{rng.choice(ADJECTIVES)}/")
    wanted, *others = rng.sample(EXTENSIONS, 3)
    stems = rng.sample(NOUNS, rng.randint(8, 14))
    count = rng.randint(3, len(stems) - 2)
    endings = [wanted] * count + [rng.choice(others) for _ in stems[count:]]
    # The first folders in turn, so that a search that does not descend counts too few.
    places = [folders[i % len(folders)] for i in range(len(stems))]
    paths = [f"{directory}/{p}{s}.{e}" for p, s, e in zip(places, stems, endings, strict=True)]
    asked = rng.choice(
        [
            f"How many .{wanted} files are in {directory} and all its subdirectories?",
            f"Count the .{wanted} files below {directory}, including all subdirectories.",
            f"Tell me how many .{wanted} files there are anywhere under {directory}.",
        ]
    )
    example = f"find {directory} -type f -name '*.{wanted}' | wc -l"
    return question(asked, fixture(short_tree(rng, paths)), str(count), example)


def _find_by_content(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    paths = new_files(rng, directory, rng.randint(4, 8))
    # File names are made of nouns, contents of adjectives: the word is in one file's text only.
    word, *rest = rng.sample(ADJECTIVES, 12)
    tree = {path: [" ".join(rng.sample(rest, 2)) for _ in range(3)] for path in paths}
    answer = rng.choice(paths)
    tree[answer][rng.randrange(3)] = f"{rng.choice(rest)} {word}"
    asked = rng.choice(
        [
            f"Which file in {directory} contains the word {word}? Answer with the file name only.",
            f"Find the file in {directory} that contains the word {word}. Give only its name.",
            f"One file in {directory} contains the word {word}. What is its name, without path?",
        ]
    )
    example = f"cd {directory} && grep -l {word} *"
    return question(asked, fixture(tree), PurePosixPath(answer).name, example)


def _top_visitor(rng: random.Random) -> Sample:
    path = f"{new_directory(rng)}/{rng.choice(NOUNS)}.log"
    winner, *others = rng.sample(USERS, 4)
    most = rng.randint(4, 7)
    visits = [winner] * most
    for other in others:
        visits += [other] * rng.randint(1, most - 1)
    rng.shuffle(visits)
    lines = [f"{user} {rng.choice(['opened', 'closed'])} {rng.choice(WORDS)}" for user in visits]
    asked = rng.choice(
        [
            f"Each line of {path} starts with a user name. Which user appears most often?",
            f"Which user appears most often in the log {path}? Names are the first words.",
            f"The first word of each line in {path} is a user. Tell me who appears most often.",
        ]
    )
    example = (
        f"awk '{{print $1}}' {path} | sort | uniq -c | sort -rn | head -n 1 | awk '{{print $2}}'"
    )
    return question(asked, fixture({path: lines}), winner, example)


def _set_permissions(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    tree = short_tree(rng, new_files(rng, directory, rng.randint(2, 4)))
    script = rng.random() < 0.5
    if script:
        path = f"{directory}/{rng.choice(ADJECTIVES)}.sh"
        tree[path] = ["#!/bin/bash", f"echo {phrase(rng)}"]
        mode, example = "755", f"chmod a+x {path}"
        wordings = [
            f"Make the script {path} executable for everyone.",
            f"Everyone should be able to execute the script {path}. Change only this permission.",
            f"Make {path} executable for all users.",
        ]
    else:
        path = rng.choice(list(tree))
        mode = rng.choice(["640", "600", "660", "444", "400", "664"])
        example = f"chmod {mode} {path}"
        wordings = [
            f"Set the permissions of the file {path} to {mode}.",
            f"Change the permissions of {path} to {mode}, and of no other file.",
            f"The file {path} should have the permissions {mode}. Set them.",
        ]
    modes = dict.fromkeys(tree, "644")
    init = fixture(tree) + "\nchmod 644 " + " ".join(quote(file) for file in tree)
    check = state_check(directory, tree, modes={**modes, path: mode})
    return change(rng.choice(wordings), init, check, example)


def _rename_by_pattern(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    old, new, *others = rng.sample([*EXTENSIONS, "md"], 4)
    stems = rng.sample(NOUNS, rng.randint(4, 8))
    count = rng.randint(2, len(stems) - 1)
    endings = [old] * count + [rng.choice(others) for _ in stems[count:]]
    paths = [f"{directory}/{s}.{e}" for s, e in zip(stems, endings, strict=True)]
    rng.shuffle(paths)
    tree = short_tree(rng, paths)
    renamed = {
        path.removesuffix(old) + new if path.endswith(f".{old}") else path: lines
        for path, lines in tree.items()
    }
    asked = rng.choice(
        [
            f"Rename all .{old} files in {directory} to .{new}. Leave the other files alone.",
            f"Change the extension of every .{old} file in {directory} to .{new}.",
            f"In {directory}, rename each file that ends in .{old} so that it ends in .{new}.",
        ]
    )
    example = f'cd {directory} && for f in *.{old}; do mv "$f" "${{f%.{old}}}.{new}"; done'
    return change(asked, fixture(tree), state_check(directory, renamed), example)


def _largest_file(rng: random.Random) -> Sample:
    directory = new_directory(rng)
    paths = new_files(rng, directory, rng.randint(3, 7))
    # Lines of one length, and a different number of lines for each file: no two sizes are equal.
    text = phrase(rng)
    sizes = rng.sample(range(1, 16), len(paths))
    tree = {path: [text] * size for path, size in zip(paths, sizes, strict=True)}
    answer = max(tree, key=lambda path: len(tree[path]))
    asked = rng.choice(
        [
            f"Which is the largest file in {directory}? Answer with the file name only.",
            f"Find the largest file by size in {directory}. Give only its name.",
            f"What is the name of the largest file in {directory}, without its path?",
        ]
    )
    example = f"ls -S {directory} | head -n 1"
    return question(asked, fixture(tree), PurePosixPath(answer).name, example)


HARD_FAMILIES: dict[str, tuple[str, Callable[[random.Random], dict[str, Any]]]] = {
    "sum_column": ("hard", _sum_column),
    "count_matching": ("hard", _count_matching),
    "count_by_extension": ("hard", _count_by_extension),
    "find_by_content": ("hard", _find_by_content),
    "top_visitor": ("hard", _top_visitor),
    "set_permissions": ("hard", _set_permissions),
    "rename_by_pattern": ("hard", _rename_by_pattern),
    "largest_file": ("hard", _largest_file),
}
