"""dvc.yaml tells the truth: what a stage imports and reads is what DVC watches for it.

DVC re-runs a stage only when something listed under it changed. A module that a stage imports, or
a parameter that it reads, without listing it is a silent source of stale results.
"""

import ast
from itertools import product
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
FOLDERS = {"task": "tasks", "method": "methods"}
# The default's tasks and methods, and those that profiles bring.
for profile in ("all", "internalize", "warm_start"):
    brought = YAML(typ="safe").load(ROOT / f"profiles/{profile}.yaml")
    for group in FOLDERS.values():
        known = brought.get(group, {})
        PARAMS[group] |= {key: value for key, value in known.items() if value is not None}
# From the bottom up: a module may import its own layer and those before it.
LAYERS = [
    "core",
    "host",
    "repro",
    "profiles",
    "tiny_model",
    "benchmark_sources",
    "acting",
    "data",
    "synthesis",
    "agents",
    "compression",
    "model_source",
    "training",
    "rows",
    "scoring",
    "probing",
    "probe_scores",
    "cost",
    "plan_memory",
    "plan_work",
    "comparisons",
    "plan_rows",
    "plan",
    "data_cost",
    "report",
    "experiments",
    "tasks",
    "methods",
    "exports",
    "internalize",
    "stages",
]


def direct_imports(module: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    stems = [ROOT / name.replace(".", "/") for name in names]
    files = [stem.with_suffix(".py") for stem in stems] + [stem / "__init__.py" for stem in stems]
    return {file for file in files if file.is_file() and file.stat().st_size}


def closure(roots: set[Path]) -> set[Path]:
    seen: set[Path] = set()
    while roots:
        seen |= roots
        roots = set().union(*map(direct_imports, roots)) - seen
    return seen


def module_of(folder: str, key: str) -> Path:
    """A method is a file, a task a folder with its helpers."""
    path = ROOT / "gcd" / folder / key
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def cells():
    """Every stage, and for a matrix stage every cell, with the values that fill its ${item.*}."""
    found = []
    for name, stage in STAGES.items():
        axes = [[(axis, key) for key in PARAMS[FOLDERS[axis]]] for axis in stage.get("matrix", {})]
        for values in product(*axes):
            item = dict(values)
            found.append(pytest.param(name, item, id="-".join([name, *item.values()])))
    return found


@pytest.mark.parametrize(("name", "item"), cells())
def test_stage_lists_every_file_it_imports(name, item):
    entry = ROOT / "stages" / f"{name}.py"
    roots = {entry}
    for axis, key in item.items():
        if f"load_{axis}" in entry.read_text():
            roots.add(module_of(FOLDERS[axis], key))
    listed = set()
    for dependency in STAGES[name]["deps"]:
        path = dependency
        for axis, key in item.items():
            path = path.replace(f"${{item.{axis}}}", key)
        listed.add(ROOT / path)
    assert {file for file in closure(roots) if not listed & {file, *file.parents}} == set()


@pytest.mark.parametrize(
    "name", [name for name in STAGES if "params.yaml" not in STAGES[name]["deps"]]
)
def test_stage_lists_every_parameter_it_reads(name):
    read = set()
    for node in ast.walk(ast.parse((ROOT / "stages" / f"{name}.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "read_params":
            for arg in node.args:
                read.add(ast.unparse(arg).strip("f'").replace("{", "${item."))
    assert read == set(STAGES[name].get("params", []))


@pytest.mark.parametrize("folder", FOLDERS.values())
def test_every_key_is_a_module_and_every_module_a_key(folder):
    modules = {path.stem for path in (ROOT / "gcd" / folder).glob("[a-z]*")}
    assert modules == set(PARAMS[folder])


def test_imports_point_downwards():
    def layer(path: Path) -> int:
        parts = [part.removesuffix(".py") for part in path.relative_to(ROOT).parts]
        return LAYERS.index(parts[1] if parts[0] == "gcd" else parts[0])

    modules = [*ROOT.glob("gcd/*/**/*.py"), *ROOT.glob("gcd/[a-z]*.py"), *ROOT.glob("stages/*.py")]
    upward = [
        (str(module.relative_to(ROOT)), str(target.relative_to(ROOT)))
        for module in modules
        for target in direct_imports(module)
        if layer(target) > layer(module) or layer(target) == LAYERS.index("stages")
    ]
    assert upward == []


def test_readme_shows_the_recorded_results():
    shown = (
        (ROOT / "README.md").read_text().split("<!-- results -->")[1].split("<!-- /results -->")[0]
    )
    assert (ROOT / "reports/tables/summary.md").read_text() in shown


def test_what_the_library_reads_by_itself_is_known():
    """Sections that DVC does not watch, because nothing that a stage writes depends on them."""
    calls = {
        (str(module.relative_to(ROOT)), ast.unparse(node))
        for module in ROOT.glob("gcd/**/*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "read_params"
    }
    assert calls == {
        ("gcd/synthesis/generation.py", "read_params('generation_server')"),
        # After the last stage, in the folder of a run.
        ("gcd/exports/writing.py", "read_params('model', 'run_episodes')"),
        (
            "gcd/internalize/fidelity.py",
            "read_params('model', 'run_episodes', f'methods.{method}')",
        ),
        ("gcd/internalize/running.py", "read_params('seed', 'score')"),
        ("gcd/tasks/os_interaction/__main__.py", "read_params('tasks.os_interaction')"),
    }
