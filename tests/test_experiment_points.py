"""Definitions of ablations and seeds: read strictly, checked against params.yaml, made points."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.experiments.definitions import Ablations, Seeds, read_definition
from gcd.experiments.points import DEFAULT, all_ablations, nest, seed_points
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()
PARAMS = YAML(typ="safe").load(TEXT)
FILES = sorted((ROOT / "experiments").glob("ablations*.yaml"))
DEFINED = {file.name: read_definition(file, Ablations) for file in FILES}
SEEDS = read_definition(ROOT / "experiments/seeds.yaml", Seeds)

SMALL = """\
task: os_interaction
method: gcd
ablations:
  weight:
    question: How much?
    axis: λ
    points:
      0.1: {methods.gcd.sft_weight: 0.1}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ablations.yaml"
    path.write_text(text)
    return path


def points_of(tmp_path: Path, text: str) -> Any:
    path = write(tmp_path, text)
    return all_ablations(read_definition(path, Ablations), None, TEXT, path)


# --- The committed definitions --------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFINED)
def test_committed_ablations_are_valid_and_hold_the_default_once(name: str) -> None:
    ablations = all_ablations(DEFINED[name], None, TEXT, ROOT / "experiments" / name)
    for points in ablations.values():
        assert [point.params == PARAMS for point in points].count(True) == 1
        assert [point.name for point in points].count(DEFAULT) == 1
        assert len({point.name for point in points}) == len(points) > 1


def test_the_larger_grid_asks_the_same_questions() -> None:
    """The report reads questions and axes in ablations.yaml, whichever grid was recorded."""
    small, large = DEFINED["ablations.yaml"], DEFINED["ablations_large.yaml"]
    assert small.ablations.keys() == large.ablations.keys()
    assert len(FILES) == 2


def test_the_default_set_is_the_one_that_is_documented() -> None:
    """18 experiments: those of docs/ablations.md, which says how long they take."""
    ablations = all_ablations(DEFINED["ablations.yaml"], None, TEXT, FILES[0])
    assert list(DEFINED["ablations.yaml"].ablations["prompt_weight"].points) == [
        0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0,
    ]  # fmt: skip
    names = {point.name for points in ablations.values() for point in points}
    assert len(names) == 18
    assert f"{len(names)} experiments" in (ROOT / "docs/ablations.md").read_text()


def test_committed_seeds_change_the_seed_and_nothing_else() -> None:
    points = seed_points(SEEDS, TEXT, Path("seeds.yaml"))
    assert len(points) >= 3
    for point in points:
        assert point.params == {**PARAMS, "seed": point.label}
    assert [point.label for point in points if point.params == PARAMS] == [PARAMS["seed"]]
    trained = [one for one in PARAMS["methods"] if one not in ("full_prompt", "no_prompt")]
    # LLMLingua-2's classifier sees no pseudo data: a seed is none of the task's.
    assert SEEDS.methods == [one for one in trained if one != "llmlingua2"]


# --- From definitions to points -------------------------------------------------------------------


def test_a_point_is_params_yaml_with_its_changes(tmp_path: Path) -> None:
    points = points_of(tmp_path, SMALL)["weight"]
    assert [(point.name, point.label) for point in points] == [
        (DEFAULT, "default"),  # named by no point, and there all the same
        ("weight-0.1", 0.1),
    ]
    assert points[0].text == TEXT
    assert points[1].text == TEXT.replace("sft_weight: 0.7", "sft_weight: 0.1")
    assert points[1].stages == ["run_episodes@os_interaction-gcd"]


def test_a_change_to_what_is_there_already_is_the_default_under_its_label(tmp_path: Path) -> None:
    more = "      0.7: {methods.gcd.sft_weight: 0.7, methods.gcd.pg_max_length: null}\n"
    points = points_of(tmp_path, SMALL + more)["weight"]
    assert [(point.name, point.label) for point in points] == [("weight-0.1", 0.1), (DEFAULT, 0.7)]


def test_the_task_is_filled_in(tmp_path: Path) -> None:
    text = SMALL.replace("methods.gcd.sft_weight: 0.1", '"tasks.{task}.training.epochs": 1')
    [_, point] = points_of(tmp_path, text)["weight"]
    assert point.params["tasks"]["os_interaction"]["training"]["epochs"] == 1
    assert point.changes == {"tasks.os_interaction.training.epochs": 1}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sft_weight: 0.1", "weight: 0.1", r"unknown key `methods\.gcd\.weight`; accepted: sft_"),
        ("sft_weight: 0.1", "sft_weight: high", r"point weight-0\.1: with its changes, .*sft_w"),
        ("sft_weight: 0.1", "sft_weight: 1.5", r"sft_weight`: .*less than or equal to 1; got 1\.5"),
        ("methods.gcd.sft_weight: 0.1", "train: 1", "key `train`: expected a mapping, got 1"),
        ("method: gcd", "method: sgd", r"no key `methods\.sgd` in params\.yaml; accepted: full_"),
        ("task: os_inter", "task: os", r"no key `tasks\.osaction` in params\.yaml; accepted: os_"),
        (
            "axis: λ",
            "axis: λ\n    axes: λ",
            r"unknown key `ablations\.weight\.axes`; accepted: question, axis",
        ),
        ("    axis: λ\n", "", r"key `ablations\.weight\.axis` is missing"),
        ("method: gcd\n", "", "key `method` is missing"),
        ("method: gcd", "method: gcd\nx: 1", "unknown key `x`; accepted: task, method, ablations"),
        ("  weight:\n", "  the-weight:\n", r"ablations\.yaml: key `ablations\.the-weight"),
    ],
)
def test_mistakes_name_key_file_and_what_is_accepted(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert SMALL.count(old) == 1
    with pytest.raises(UserError, match=message) as raised:
        points_of(tmp_path, SMALL.replace(old, new))
    assert "ablations.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("      0.1: {methods.gcd.sft_weight: 0.2}\n", "not valid YAML: .*duplicate key"),
        ("      low: {methods.gcd.sft_weight: 0.1}\n", r"points 0\.1 and low are the same"),
    ],
)
def test_a_point_twice(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        points_of(tmp_path, SMALL + more)


def test_unknown_names(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    with pytest.raises(UserError, match=r"no ablation `wait`; there are: weight\."):
        all_ablations(read_definition(path, Ablations), "wait", TEXT, path)
    with pytest.raises(UserError, match=r"ablations_huge\.yaml: no such file; there are: ablat"):
        read_definition(tmp_path / "ablations_huge.yaml", Ablations)


@pytest.mark.parametrize("seeds", [[1, 2, 3], [0, 1, 1]])
def test_seeds_differ_and_hold_the_default(seeds: list[int]) -> None:
    with pytest.raises(UserError, match="`seeds`: expected different numbers"):
        seed_points(SEEDS.model_copy(update={"seeds": seeds}), TEXT, Path("seeds.yaml"))


def test_nest() -> None:
    assert nest("a.b.c", {"d": 1}) == {"a": {"b": {"c": {"d": 1}}}}
    assert nest("seed", 3) == {"seed": 3}


# --- What DVC computes again ----------------------------------------------------------------------

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def cells(task: str, method: str) -> dict[str, dict[str, list[str]]]:
    """The stages of one task and one method, with their deps, params and outs filled in."""

    def fill(item: Any) -> str:
        text = str(next(iter(item)) if isinstance(item, dict) else item)
        return text.replace("${item.task}", task).replace("${item.method}", method)

    groups = {"deps": ["deps"], "params": ["params"], "outs": ["outs", "metrics"]}
    return {
        name: {
            group: [fill(item) for key in keys for item in stage.get(key, [])]
            for group, keys in groups.items()
        }
        for name, stage in STAGES.items()
    }


def inside(one: str, other: str, separator: str) -> bool:
    """Whether one of the two is the other or lies in it."""
    first, second = (f"{name}{separator}" for name in (one, other))
    return first.startswith(second) or second.startswith(first)


def seeing(keys: list[str]) -> set[str]:
    """The stages of os_interaction and gcd that read one of `keys`."""
    return {
        name
        for name, stage in cells("os_interaction", "gcd").items()
        if any(inside(key, param, ".") for key in keys for param in stage["params"])
    }


def computed_again(keys: list[str]) -> set[str]:
    """The stages that see one of `keys`, and all that may follow."""
    found, again = cells("os_interaction", "gcd"), seeing(keys)
    while True:
        outs = [out for name in again for out in found[name]["outs"]]
        more = {
            name
            for name, stage in found.items()
            if any(inside(out, dep, "/") for out in outs for dep in stage["deps"])
        }
        if more <= again:
            return again
        again |= more


SYNTHESIS = {
    "make_pseudo_inputs",
    "make_paired_outputs",
    "make_reasons",
    "make_pseudo_conversations",
}
FIT = {"fit", "run_episodes", "probe_behaviour", "score", "measure_cost", "report"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("prompt_weight", 0.1),
        ("lora_rank", 4),
        ("reasons", "shuffled"),
        ("pg_target", "cut_512"),
        ("conversations", "single_turn"),
    ],
)
def test_what_concerns_training_alone_makes_no_data_again(name: str, label: Any) -> None:
    assert computed_again(list(DEFINED["ablations.yaml"].ablations[name].points[label])) == FIT


def test_numbers_of_a_task_concern_more() -> None:
    """Samples and teacher states are made again, and come out the same: nothing follows them."""
    again = {"prepare", "record_teacher_states", "fit", "run_episodes"}
    assert seeing(["tasks.os_interaction.training.epochs"]) == again
    inputs = {"make_pseudo_inputs", "make_reasons", "make_pseudo_conversations"}
    inputs |= {"prepare", "record_teacher_states", "run_episodes"}
    assert seeing(["tasks.os_interaction.synthesis.inputs"]) == inputs


def test_a_seed_leaves_the_samples_and_the_teacher_states_alone() -> None:
    again = computed_again(["seed"])
    assert again == SYNTHESIS | FIT
    assert not again & {"prepare", "record_teacher_states"}
