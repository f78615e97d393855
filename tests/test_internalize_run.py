"""The run of a prompt: its worktree, its stages, what is read afterwards."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gcd.agents import load_base_agent
from gcd.core import base_model
from gcd.core.errors import UserError
from gcd.core.params import Params
from gcd.core.records import AgentRecord, Episode, Turn
from gcd.internalize import worktree
from gcd.internalize.checks import Asked
from gcd.internalize.fidelity import answers_of, ask, compare_along, read_along
from gcd.internalize.records import Answer
from gcd.rows import Row
from gcd.tasks.custom.inputs import Input
from tests import tiny
from tests.miniature import ENVIRONMENT
from tests.settings import sections
from tests.test_decoding import PROMPT
from tests.test_experiment_runs import IDENTITY, git
from tests.test_prefixes import MODEL

PARAMS = Params({"model": MODEL, **sections("run_episodes")}, {})


def asked(name: str = "shop", prompt: str = "You sell fern.") -> Asked:
    return Asked(name, Path("shop.md"), prompt, ["birch?"], None, None, [], None, False, False, [])


# --- What is read afterwards ----------------------------------------------------------------------


@pytest.fixture
def prepared(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model where `prepare_model` leaves the base."""
    tiny.save(tiny.make_model(tokenizer), tokenizer, tmp_path / "base")
    (tmp_path / "base/model.json").write_text('{"source": "path"}')
    monkeypatch.setattr(base_model, "BASE", tmp_path / "base")
    return tmp_path


def test_the_teacher_agrees_with_itself_exactly_and_the_bare_model_does_not(prepared: Path) -> None:
    teacher = load_base_agent(PARAMS, PROMPT, prepared)
    inputs = ["apple birch", "cedar"]
    answers = [
        Answer(index=text, source="user", input=text, reply=one.text, tokens=1, complete=True)
        for text, one in zip(inputs, teacher.write(ask(inputs), 6), strict=True)
        if one is not None
    ]
    assert len(answers) == 2
    read = read_along(teacher, answers)
    for one, states in zip(compare_along(teacher, read, read), read, strict=True):
        assert one.agreeing == one.positions == len(states.ids) + 1
        assert one.kl == 0
    # Greedy replies are the teacher's first choices, but for the end where a reply was cut.
    for states in read:
        chosen = teacher.log_probabilities(states.states[:-1]).argmax(-1).tolist()
        assert chosen == states.ids
    bare = load_base_agent(PARAMS, [], prepared)
    found = compare_along(bare, read_along(bare, answers), read)
    assert [one.index for one in found] == [0, 1]
    assert all(one.kl > 1e-4 for one in found)


def test_an_input_without_a_reply_is_left_out() -> None:
    samples = {
        index: Input(index=index, source="user", text=f"text\n{index}") for index in ("a", "b")
    }
    turn = Turn(
        reply="yes",
        context_tokens=3,
        reply_tokens=2,
        complete=True,
        continues=False,
        action=None,
        observation=None,
    )
    episodes = [
        Episode(
            task="custom",
            row="gcd",
            index=index,
            groups={},
            problem="text",
            status="completed",
            score=1.0,
            measures={},
            details={},
            prompt_tokens=0,
            turns=turns,
            error=None,
        )
        for index, turns in (("a", []), ("b", [turn]))
    ]
    agent = AgentRecord(
        row="gcd", deployment="base", prompt_tokens=0, adapter_parameters=0, bytes_to_ship=0
    )
    [found] = answers_of(Row("gcd", agent, episodes, [], []), samples)
    assert (found.index, found.input, found.reply, found.tokens) == ("b", "text\nb", "yes", 2)


# --- Stages ---------------------------------------------------------------------------------------


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A folder in which `python -m gcd.repro` is the file gcd/repro/__main__.py, to be written."""
    for name in ("gcd", "gcd/repro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    return tmp_path


def test_a_run_gets_its_params_and_stages(driver: Path) -> None:
    script = "import sys\nopen('ran', 'w').write(str(sys.argv[1:]) + open('params.yaml').read())\n"
    (driver / "gcd/repro/__main__.py").write_text(script)
    worktree.drive(driver, "seed: 7\n", ["a", "b@custom"])
    assert (driver / "ran").read_text() == "['--stages', 'a,b@custom']seed: 7\n"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("fit: out of luck", r"^fit: out of luck \(Whole output: .*/logs/\.\)$"),
        (
            "make_pseudo_inputs: make_pseudo_inputs.minimum: at least 12 are needed, only 3 "
            "usable; rejected: {'duplicate': 40}. Make more inputs",
            r"only 3 usable; rejected: {'duplicate': 40}.*Give INPUTS .* or a stronger MODEL",
        ),
    ],
)
def test_a_stage_that_fails_is_told_with_what_to_do(driver: Path, said: str, message: str) -> None:
    (driver / "gcd/repro/__main__.py").write_text(f"import sys\nsys.exit({said!r})\n")
    with pytest.raises(UserError, match=message):
        worktree.drive(driver, "seed: 0\n", ["a"])


# --- The worktree, on a repository of a few lines -------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit with a base model beside it, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**ENVIRONMENT, **IDENTITY}.items():
        monkeypatch.setenv(name, value)
    Path("params.yaml").write_text("seed: 0\n")
    Path(".gitignore").write_text("/models/\n/.work/\n/exports/\n")
    Path(".dvcignore").write_text(".work/\n")
    Path("models/base").mkdir(parents=True)
    Path("models/base/x").write_text("weights")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm all"):
        subprocess.run(command.split(), check=True)
    return tmp_path


@pytest.mark.slow
def test_a_worktree_leaves_the_workspace_alone_and_is_found_again(repository: Path) -> None:
    commit = worktree.clean_commit()
    folder = worktree.prepare("shop", commit)
    worktree.write_inputs(folder, asked())
    assert (folder / "models/base/x").samefile("models/base/x")
    assert (folder / worktree.PROMPT).read_text() == "You sell fern.\n"
    assert (folder / "data/prompts/custom/inputs.jsonl").read_text() == '{"input":"birch?"}\n'
    assert (folder / "data/prompts/custom/held_out.jsonl").read_text() == ""
    assert git("status", "--porcelain") == ""
    # What a killed run left, and what it had made, is there for the next.
    (folder / "dvc.lock").write_text("half")
    (folder / "data/prompts/custom/held_out.jsonl").write_text('{"input":"cedar?"}\n')
    assert worktree.prepare("shop", commit) == folder
    worktree.write_inputs(folder, asked(prompt="You sell grape."))
    assert (folder / "dvc.lock").read_text() == "half"
    assert (folder / worktree.PROMPT).read_text() == "You sell grape.\n"
    assert (folder / "data/prompts/custom/held_out.jsonl").read_text() == '{"input":"cedar?"}\n'
    # Another prompt's run takes the model from the first, where the workspace has none.
    Path("models/base/x").unlink()
    Path("models/base").rmdir()
    other = worktree.prepare("other", commit)
    assert (other / "models/base/x").samefile(folder / "models/base/x")
    # A new commit is what runs next.
    Path("new").write_text("new")
    for command in ("git add -A", "git commit -qm new"):
        subprocess.run(command.split(), check=True)
    worktree.prepare("shop", worktree.clean_commit())
    assert (folder / "new").read_text() == "new"


@pytest.mark.slow
def test_what_runs_is_the_commit(repository: Path) -> None:
    Path("internalize.yaml").write_text("numbers: of one's own\n")
    worktree.clean_commit()
    Path("params.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"The last commit is run, and params\.yaml differs"):
        worktree.clean_commit()
