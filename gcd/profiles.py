"""Profiles: named changes of params.yaml, for other machines and other sizes.

python -m gcd.profiles smoke

`profiles/<name>.yaml` holds only what differs from the committed params.yaml, nested alike; under
`tasks:` and `methods:` it may bring more of them, whole, or take one away: `null` in its place. The
command writes params.yaml anew: the committed file with these changes. `default` changes nothing.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from gcd.core.errors import UserError
from gcd.core.params import FILE, check_sections, every_section
from gcd.core.records import write_text

FOLDER = Path("profiles")
# Where a profile may bring keys and take them away: a key is a module in gcd/<group>/.
GROUPS = ("tasks", "methods")
MODULES = Path(__file__).parent


class _Representer(RoundTripRepresenter):
    """Writes `null` for None. A class of its own: representers belong to a class, and DVC's
    dvc.lock is written with ruamel's, which leaves the value out."""


_Representer.add_representer(
    type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _round_trip() -> YAML:
    """A parser that keeps comments, quotes and `null` as they stand."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 1000  # no line is broken
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def read_profile(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The changes of a profile; raises UserError if it is missing or no mapping."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        raise UserError(f"{path}: no such profile; there are {', '.join(known)}.")
    try:
        profile = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(profile, dict):
        raise UserError(f"{path}: expected a mapping of keys of params.yaml, got {profile!r}.")
    return profile


def merge(params: dict[str, Any], changes: dict[str, Any], source: Path, above: str = "") -> None:
    """Change `params` in place; raises UserError on a key it does not have.

    A mapping may take the place of a number, as where λ is given by task.
    """
    for key, value in changes.items():
        if key not in params:
            raise UserError(f"{source}: unknown key `{above}{key}`; accepted: {', '.join(params)}.")
        if isinstance(params[key], dict):
            if not isinstance(value, dict):
                raise UserError(f"{source}: key `{above}{key}`: expected a mapping, got {value!r}.")
            merge(params[key], value, source, f"{above}{key}.")
        else:
            params[key] = value


def _split_off_modules(
    params: dict[str, Any], profile: dict[str, Any], source: Path, group: str
) -> tuple[dict[str, Any], list[str]]:
    """Take out of `profile` what it brings under `group`, and what it takes away; return both.

    Raises:
        UserError: what it brings is no module of `gcd/<group>`, or what it takes away is not there.
    """
    changes, has = profile.get(group), params[group]
    if not isinstance(changes, dict):
        return {}, []
    gone = [key for key, value in changes.items() if value is None]
    new = {key: changes[key] for key in changes if key not in has and key not in gone}
    found = (path for path in (MODULES / group).iterdir() if path.name[0].isalpha())
    known = sorted(path.stem for path in found)
    for keys, accepted in ((new, known), (gone, list(has))):
        for key in keys:
            if key not in accepted:
                raise UserError(
                    f"{source}: unknown key `{group}.{key}`; accepted: {', '.join(accepted)}."
                )
    profile[group] = {key: changes[key] for key in changes if key in has and key not in gone}
    return new, gone


def _lines_of(lines: list[str], start: int, depth: int) -> int:
    """Where the section that begins with line `start` ends; its key is indented by `depth`."""
    ends = (
        place
        for place in range(start + 1, len(lines))
        if len(lines[place]) - len(lines[place].lstrip(" ")) <= depth
    )
    return next(ends, len(lines))


def replace_modules(text: str, group: str, new: dict[str, Any], gone: Iterable[str]) -> str:
    """`text` without the keys `gone` of its section `group`, and with `new` behind the others.

    As text: the comment before the next section belongs, to ruamel, to the last key of this one.
    """
    lines = text.splitlines(keepends=True)
    start = lines.index(f"{group}:\n")
    for key in gone:
        place = lines.index(f"  {key}:\n" if f"  {key}:\n" in lines else f"  {key}: {{}}\n", start)
        del lines[place : _lines_of(lines, place, 2)]
    if new:
        stream = io.StringIO()
        _round_trip().dump({group: new}, stream)
        end = _lines_of(lines, start, 0)
        lines[end:end] = stream.getvalue().splitlines(keepends=True)[1:]
    return "".join(lines)


def change_params(text: str, changes: Iterable[dict[str, Any]], source: Path) -> str:
    """The text of a params.yaml with `changes`, one after the other; all else stays, comments too.

    Args:
        text: the file as it stands.
        changes: each nested like the file.
        source: the file that asks for them, for messages.

    Raises:
        UserError: a key that `text` does not have, or a value in the place of a mapping.
    """
    yaml = _round_trip()
    params = yaml.load(text)
    for change in changes:
        merge(params, change, source)
    stream = io.StringIO()
    yaml.dump(params, stream)
    return stream.getvalue()


def merge_profile(text: str, name: str, folder: Path = FOLDER) -> str:
    """The text of a params.yaml with a profile's changes; all else stays, comments too.

    Raises:
        UserError: there is no such profile, or it names a key that `text` does not have and that is
            no task or method either.
    """
    params = YAML(typ="safe").load(text)
    profile, source = read_profile(name, folder), folder / f"{name}.yaml"
    modules = {group: _split_off_modules(params, profile, source, group) for group in GROUPS}
    text = change_params(text, [profile], source)
    for group, (new, gone) in modules.items():
        text = replace_modules(text, group, new, gone)
    return text


def apply_profile(text: str, name: str, folder: Path = FOLDER) -> str:
    """`merge_profile`, and the result is valid.

    Raises:
        UserError: see `merge_profile`, or the result is not valid (`stages.check_params`).
    """
    new = merge_profile(text, name, folder)
    merged = YAML(typ="safe").load(new)
    check_sections(merged, *every_section(merged))
    return new


def committed_params() -> str:
    """params.yaml as the last commit has it; raises UserError outside a repository."""
    command = ["git", "show", f"HEAD:./{FILE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"What is changed is the committed {FILE}, and there is none: {done.stderr.strip()}"
        )
    return done.stdout


def use_profile(name: str) -> None:
    """Write params.yaml: the committed one with the profile's changes.

    Whether they are valid is for `check_params` to say, the first stage of every run: here that
    would import all methods, and torch with them, which takes ten seconds.

    Raises:
        UserError: see `merge_profile`; or params.yaml has changes of its own, which would be lost.
    """
    committed = committed_params()
    new = merge_profile(committed, name)
    current = FILE.read_text(encoding="utf-8")
    if current not in (committed, new):
        others = [file.stem for file in FOLDER.glob("*.yaml") if file.stem != name]
        if all(current != merge_profile(committed, other) for other in others):
            raise UserError(
                f"{FILE} differs from the last commit, and a profile would overwrite that. Commit "
                f"your changes first, or drop them: git checkout {FILE}"
            )
    write_text(FILE, new)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m gcd.profiles", description=__doc__)
    parser.add_argument("name", help="profiles/<name>.yaml")
    try:
        use_profile(parser.parse_args().name)
    except UserError as error:
        sys.exit(f"profiles: {error}")


if __name__ == "__main__":
    main()
