"""The contract of a task, for every key of params.yaml. Oracles are in each task's own tests."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.interfaces import load_task
from gcd.core.prompt import parse_prompt, read_prompt_text
from tests.conftest import ROOT
from tests.settings import task_settings

TASKS = list(YAML(typ="safe").load(ROOT / "params.yaml")["tasks"])
SPLITS = ("demonstrations", "development", "test")


@pytest.fixture(scope="module", params=TASKS)
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A task, its settings, and the folder that its samples were written into."""
    task, settings = load_task(request.param), task_settings(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    assert task.write_samples(settings, folder) == []
    return task, settings, folder


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_counts_are_as_asked_and_no_problem_is_in_two_splits(written: Any) -> None:
    task, settings, folder = written
    problems: list[str] = []
    for name in SPLITS:
        samples = task.read_samples(folder / f"{name}.jsonl")
        assert len(samples) == getattr(settings, name).count
        assert len({sample.index for sample in samples}) == len(samples)
        problems += {sample.problem for sample in samples}
    assert len(problems) == len(set(problems))


def test_one_seed_gives_the_same_bytes_and_another_does_not(written: Any, tmp_path: Path) -> None:
    task, settings, folder = written
    task.write_samples(settings, tmp_path / "again")
    # Stores name their files' paths.
    moved = {name: data.replace(bytes(folder), b"") for name, data in files(folder).items()}
    again = files(tmp_path / "again")
    assert moved == {n: data.replace(bytes(tmp_path / "again"), b"") for n, data in again.items()}
    other = settings.model_copy(
        update={"test": settings.test.model_copy(update={"seed": "another"})}
    )
    task.write_samples(other, tmp_path / "other")
    assert files(tmp_path / "other")["test.jsonl"] != files(folder)["test.jsonl"]


def test_demonstrations_have_the_form_that_inventions_must_have(written: Any) -> None:
    task, settings, folder = written
    for sample in task.read_samples(folder / "demonstrations.jsonl"):
        assert task.is_problem(sample.problem)
        assert len(sample.problem) <= settings.synthesis.input_characters
        assert task.first_message(sample.problem).strip()


def test_the_prompts_demonstrations_are_valid_actions_and_end(written: Any) -> None:
    task, settings, _ = written
    path = ROOT / f"data/prompts/{settings.prompt}.md"
    prompt = parse_prompt(read_prompt_text(path), str(path))
    actions = [task.parse_action(turn.content) for turn in prompt if turn.role == "assistant"]
    assert None not in actions
    assert task.is_final(actions[-1])


def test_a_silent_agent_scores_0(written: Any) -> None:
    task, settings, folder = written
    for sample in task.read_samples(folder / "test.jsonl")[:4]:
        with task.start(sample, settings) as environment:
            for _ in range(settings.max_turns + 1):
                if environment.status == "running":
                    environment.step("")
            assert environment.status != "running"
            assert environment.score == 0.0
            assert all(value == 0.0 for value in environment.measures.values())
