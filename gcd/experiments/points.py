"""From definitions to points: a name for DVC, the params.yaml, and the stages to run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.params import check_sections, every_section
from gcd.experiments.definitions import Ablation, Ablations, Seeds
from gcd.profiles import change_params

# All ablations share the point without a change, and run it once.
DEFAULT = "ablations-default"


@dataclass(frozen=True)
class Point:
    """A DVC experiment.

    Attributes:
        name: of the experiment.
        label: what the point is called on its axis; of a seed, the seed.
        changes: {dotted key: value}, as they are asked for.
        text: its params.yaml.
        params: what `text` says.
        stages: what is run, with all that it needs.
    """

    name: str
    label: int | float | str
    changes: dict[str, Any]
    text: str
    params: dict[str, Any]
    stages: list[str]


def nest(key: str, value: Any) -> dict[str, Any]:
    """("a.b", 1) -> {"a": {"b": 1}}."""
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested  # type: ignore[no-any-return]


def make_point(
    name: str,
    label: int | float | str,
    changes: dict[str, Any],
    stages: list[str],
    text: str,
    source: Path,
) -> Point:
    """The point with `changes` of the params.yaml `text`.

    Raises:
        UserError: a key that params.yaml does not have, or a value that it does not accept.
    """
    changed = change_params(text, [nest(key, value) for key, value in changes.items()], source)
    params = YAML(typ="safe").load(changed)
    try:
        check_sections(params, *every_section(params))
    except UserError as error:
        raise UserError(f"{source}: point {name}: with its changes, {error}") from error
    return Point(name, label, changes, changed, params, stages)


def played(task: str, methods: Iterable[str], params: dict[str, Any], source: Path) -> list[str]:
    """The stages that let `methods` act in `task`.

    Raises:
        UserError: params.yaml has no such task or method.
    """
    for group, names in (("tasks", [task]), ("methods", methods)):
        for name in names:
            if name not in params[group]:
                raise UserError(
                    f"{source}: no key `{group}.{name}` in params.yaml; "
                    f"accepted: {', '.join(params[group])}."
                )
    return [f"run_episodes@{task}-{method}" for method in methods]


def ablation_points(
    name: str, ablation: Ablation, definition: Ablations, text: str, source: Path
) -> list[Point]:
    """The points of one ablation in their order, the one without a change among them, once.

    A point that changes params.yaml's values to what they are is that one, and keeps its label.

    Raises:
        UserError: see `make_point`; or two points come to the same.
    """
    params = YAML(typ="safe").load(text)
    stages = played(definition.task, [definition.method], params, source)
    points: list[Point] = []
    for label, asked in ablation.points.items():
        changes = {key.replace("{task}", definition.task): asked[key] for key in asked}
        point = make_point(f"{name}-{label}", label, changes, stages, text, source)
        for other in points:
            if other.params == point.params:
                raise UserError(
                    f"{source}: ablation {name}: the points {other.label} and {label} are the "
                    "same; remove one."
                )
        if point.params == params:
            point = Point(DEFAULT, label, changes, text, params, stages)
        points.append(point)
    if all(point.name != DEFAULT for point in points):
        points.insert(0, Point(DEFAULT, "default", {}, text, params, stages))
    return points


def all_ablations(
    definition: Ablations, only: str | None, text: str, source: Path
) -> dict[str, list[Point]]:
    """{ablation: its points}, of all ablations or of `only`.

    Raises:
        UserError: no ablation `only`; see `ablation_points`.
    """
    if only is not None and only not in definition.ablations:
        raise UserError(
            f"{source}: no ablation `{only}`; there are: {', '.join(definition.ablations)}."
        )
    return {
        name: ablation_points(name, ablation, definition, text, source)
        for name, ablation in definition.ablations.items()
        if only in (None, name)
    }


def seed_points(definition: Seeds, text: str, source: Path) -> list[Point]:
    """A point a seed.

    Raises:
        UserError: a seed that stands twice, or params.yaml's own is missing; see `make_point`.
    """
    params = YAML(typ="safe").load(text)
    seeds = definition.seeds
    if len(set(seeds)) < len(seeds) or params["seed"] not in seeds:
        raise UserError(
            f"{source}: key `seeds`: expected different numbers, params.yaml's {params['seed']} "
            f"among them, got {seeds}."
        )
    stages = played(definition.task, definition.methods, params, source)
    return [
        make_point(f"seeds-{seed}", seed, {"seed": seed}, stages, text, source) for seed in seeds
    ]


def rows_of(methods: Iterable[str], params: dict[str, Any]) -> list[str]:
    """The rows of the results table that `methods` fill."""
    return [
        row
        for method in methods
        for row in load_method(method).rows(check_sections(params, f"methods.{method}").method)
    ]
