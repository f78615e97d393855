"""Profiles: named changes of params.yaml, for other machines and other sizes.

python -m gcd.profiles smoke

`profiles/<name>.yaml` holds only what differs from the committed params.yaml, nested alike; under
`methods:` it may bring more of them, whole. The command writes params.yaml anew: the committed file
with these changes. `default` changes nothing.
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
METHODS = Path(__file__).parent / "methods"


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


def _merge(params: dict[str, Any], changes: dict[str, Any], source: Path, above: str) -> None:
    """Change `params` in place; raises UserError on a key it does not have.

    A mapping may take the place of a number, as where λ is given by task.
    """
    for key, value in changes.items():
        if key not in params:
            raise UserError(f"{source}: unknown key `{above}{key}`; accepted: {', '.join(params)}.")
        if isinstance(params[key], dict):
            if not isinstance(value, dict):
                raise UserError(f"{source}: key `{above}{key}`: expected a mapping, got {value!r}.")
            _merge(params[key], value, source, f"{above}{key}.")
        else:
            params[key] = value


def _split_off_methods(
    params: dict[str, Any], profile: dict[str, Any], source: Path
) -> dict[str, Any]:
    """Take the methods out of `profile` that `params` does not have, and return them.

    Raises:
        UserError: one of them is no module of `gcd/methods`.
    """
    methods, has = profile.get("methods"), params["methods"]
    if not isinstance(methods, dict):
        return {}
    known = sorted(file.stem for file in METHODS.glob("[a-z]*.py"))
    new = [key for key in methods if key not in has]
    for key in new:
        if key not in known:
            raise UserError(f"{source}: unknown key `methods.{key}`; accepted: {', '.join(known)}.")
    return {key: methods.pop(key) for key in new}


def _insert_methods(text: str, methods: dict[str, Any]) -> str:
    """`text` with `methods` behind its own ones.

    As text: the comment before the next section belongs, to ruamel, to the last key of this one.
    """
    if not methods:
        return text
    stream = io.StringIO()
    _round_trip().dump({"methods": methods}, stream)
    lines, new = text.splitlines(keepends=True), stream.getvalue().splitlines(keepends=True)
    start = lines.index(new[0]) + 1
    ends = (place for place in range(start, len(lines)) if not lines[place].startswith(" "))
    end = next(ends, len(lines))
    return "".join(lines[:end] + new[1:] + lines[end:])


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
        _merge(params, change, source, "")
    stream = io.StringIO()
    yaml.dump(params, stream)
    return stream.getvalue()


def merge_profile(text: str, name: str, folder: Path = FOLDER) -> str:
    """The text of a params.yaml with a profile's changes; all else stays, comments too.

    Raises:
        UserError: there is no such profile, or it names a key that `text` does not have and that is
            no method either.
    """
    params = YAML(typ="safe").load(text)
    profile, source = read_profile(name, folder), folder / f"{name}.yaml"
    methods = _split_off_methods(params, profile, source)
    return _insert_methods(change_params(text, [profile], source), methods)


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
