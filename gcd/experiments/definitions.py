"""The files of experiments/: what the ablations and the seeds are, read strictly."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gcd.core.errors import UserError
from gcd.core.params import check_section
from gcd.core.settings import Name, Section

FOLDER = Path("experiments")
# Parts of an experiment's name, which is part of a git reference.
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Label = int | float | Identifier


class Ablation(Section):
    """A question, and the points that answer it.

    `axis` says what differs between the points. Each has a label, a number where it stands at a
    place of a numeric axis, and changes of params.yaml by dotted key, in which `{task}` is the
    task. The point without a change belongs to every ablation, named or not.
    """

    question: Name
    axis: Name
    points: Annotated[dict[Label, dict[Name, Any]], Field(min_length=1)]


class Ablations(Section):
    """experiments/ablations.yaml: one task, and the method whose row is compared."""

    task: Name
    method: Name
    ablations: Annotated[dict[Identifier, Ablation], Field(min_length=1)]


class Seeds(Section):
    """experiments/seeds.yaml: the rows of `methods` in one task, once for each of `seeds`."""

    task: Name
    methods: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=3)]


DefinitionT = TypeVar("DefinitionT", Ablations, Seeds)


def read_definition(path: Path, kind: type[DefinitionT]) -> DefinitionT:
    """Read a file of experiments/.

    Raises:
        UserError: it is missing or no YAML (a label that stands twice is none), or a key is
            unknown, missing or mistyped.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.name for file in path.parent.glob("*.yaml")))
        raise UserError(f"{path}: no such file; there are: {known}.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if kind is Ablations and isinstance(raw, dict) and isinstance(raw.get("ablations"), dict):
        # One by one, so that a message names what an ablation accepts.
        for name, section in raw["ablations"].items():
            check_section(f"ablations.{name}", Ablation, section, path)
    definition: DefinitionT = check_section("", kind, raw, path)
    return definition
