"""docs/add-a-task.md is true: its three blocks, put into a repository, run from end to end."""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.params import check_section
from gcd.core.prompt import parse_prompt
from gcd.tiny_model import WORD, Protocol
from tests import tiny
from tests.conftest import ROOT
from tests.miniature import make_repository, repro, shrink

NAME = "pocket_calculator"


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """{path: text} of the page's code blocks; their first line names the file."""
    page = (ROOT / "docs/add-a-task.md").read_text(encoding="utf-8")
    found = re.findall(r"```(?:python|yaml|text)\n# (\S+).*?\n(.*?)```", page, re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def task(blocks: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's module, imported."""
    folder = tmp_path_factory.mktemp("package")
    (folder / f"{NAME}.py").write_text(blocks[f"gcd/tasks/{NAME}/__init__.py"])
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(NAME)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def settings(blocks: dict[str, str], task: Any) -> Any:
    section = YAML(typ="safe").load(blocks["params.yaml"])[NAME]
    return check_section(f"tasks.{NAME}", task.Settings, section)


def test_an_oracle_scores_1_and_silence_0(task: Any, settings: Any, tmp_path: Path) -> None:
    assert task.write_samples(settings, tmp_path) == []
    samples = task.read_samples(tmp_path / "test.jsonl")
    assert len(samples) == settings.test.count
    for sample in samples:
        with task.start(sample, settings) as oracle, task.start(sample, settings) as silent:
            shown = oracle.step(f"Press: {sample.left} + {sample.right}")
            oracle.step(f"Answer: {shown.removeprefix('Display: ')}")
            silent.step("")
            assert (oracle.score, silent.score) == (1.0, 0.0)


@pytest.mark.slow
def test_the_whole_pipeline_runs_on_it(blocks: dict[str, str], task: Any, tmp_path: Path) -> None:
    """One package, one key, one prompt, and `dvc repro` reports on the task."""
    prompt = blocks[f"data/prompts/{NAME}.md"]
    taught = tmp_path / "taught"
    problem = f"What is {WORD} plus 7?"
    system, _, *turns = [message.content for message in parse_prompt(prompt, NAME)[:5]]
    protocol = Protocol(
        words=tuple(str(number) for number in range(31, 41)),
        system=system,
        problem=problem,
        turns=(task.first_message(problem), *turns),
    )
    tiny.save_taught(protocol, taught)
    folder = make_repository(tmp_path / "repository", taught)
    for path in (f"gcd/tasks/{NAME}/__init__.py", f"data/prompts/{NAME}.md"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(blocks[path])
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["tasks"] = YAML().load(blocks["params.yaml"])
    shrink(params)
    yaml.dump(params, folder / "params.yaml")
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    scores = json.loads((folder / "reports/scores.json").read_text())[NAME]
    assert scores["full_prompt"]["valid_action_rate"]["value"] > 0
    assert NAME in (folder / "reports/report.md").read_text()
