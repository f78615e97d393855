"""The run of a prompt: its worktree, its stages, what is read afterwards; once from end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.agents import load_base_agent
from gcd.core import base_model
from gcd.core.errors import UserError
from gcd.core.params import Params
from gcd.core.prompt import parse_prompt
from gcd.core.records import AgentRecord, Episode, Turn
from gcd.internalize import worktree
from gcd.internalize.checks import Asked
from gcd.internalize.fidelity import answers_of, ask, compare_along, read_along
from gcd.internalize.records import Answer
from gcd.rows import Row
from gcd.tasks.custom.inputs import Input
from tests import tiny
from tests.miniature import ENVIRONMENT, ROOT, make_repository
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


# --- The real pipeline in miniature ---------------------------------------------------------------

# Numbers so small that a model of two layers takes a minute; verdicts mean nothing.
NUMBERS = {
    "teacher": {"max_new_tokens": 60},
    "make_pseudo_inputs": {
        "minimum": 3,
        "max_requests": 12,
        "demonstrations": 2,
        "temperature": 1.0,
    },
    "make_paired_outputs": {"minimum": 1},
    "make_reasons": {"minimum": 1, "max_new_tokens": 20},
    "make_pseudo_conversations": {"minimum": 1},
    "run_episodes": {"max_new_tokens": 60, "recall_tokens": 32},
    "record_base_behaviour": {"answer_tokens": 8},
    "probe_behaviour": {"extraction_tokens": 16},
    "score": {"bootstrap_samples": 100, "permutations": 99},
}
# The model knows ten problems: four are for training, and at least two of the others are held out.
SIZES = {"inputs": 4, "per_request": 3, "input_tokens": 100, "input_characters": 200, "reasons": 4}


def change(path: Path, changes: Any) -> None:
    """Apply `changes` to what a YAML file says."""
    yaml = YAML()
    content = yaml.load(path)
    changes(content)
    yaml.dump(content, path)


def shrink_params(params: dict[str, Any]) -> None:
    for name, section in NUMBERS.items():
        params[name] |= section
    params["train"]["checkpoint_every"] = 1
    params["train"]["lora"]["rank"] = 4


def shrink_profile(profile: dict[str, Any]) -> None:
    for name in ("teacher", "run_episodes"):
        profile[name] = {"max_new_tokens": 60}
    task = profile["tasks"]["custom"]
    task["development"]["count"] = 1
    task["synthesis"] |= SIZES
    task["training"] = {"epochs": 2, "batch_size": 2}


def shrink_settings(settings: dict[str, Any]) -> None:
    settings["held_out"] |= {"count": 8, "minimum": 2}
    settings["prompt"]["context_room"] = 300


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """A clone in which nothing has run, but for the numbers; the tiny model beside it."""
    folder = make_repository(tmp_path_factory.mktemp("internalize"), taught)
    for name in ("profiles", "examples"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(folder / name)], check=True)
    for name in ("params.yaml", "internalize.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    change(folder / "params.yaml", shrink_params)
    change(folder / "profiles/internalize.yaml", shrink_profile)
    change(folder / "internalize.yaml", shrink_settings)
    (folder / "shell.md").write_text(tiny.PROMPT)
    (folder / "shell.regex").write_text(r"(?s)Think:.*")
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "config", key, "nobody@localhost"], cwd=folder, check=True)
    (folder / ".git/info/exclude").write_text("/mine/\n")
    for command in ("git add -A", "git commit -qm all"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


def command(*options: str) -> list[str]:
    fixed = ["shell.md", "--model", "mine", "--format", "shell.regex"]
    return [sys.executable, "-m", "gcd.internalize", *fixed, *options]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_from_a_prompt_to_a_verdict_killed_in_between(committed: Path) -> None:
    process = subprocess.Popen(
        command(), cwd=committed, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    begun = ".work/internalize/shell/.work/fit-custom-*/*/checkpoint.pt"
    while process.poll() is None and not list(committed.glob(begun)):
        time.sleep(0.01)
    assert process.poll() is None, "over before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (committed / "exports").exists()
    done = run(committed)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    export = committed / "exports/shell"
    record = json.loads((export / "record.json").read_text())
    assert set(record["methods"]) == {"full_prompt", "no_prompt", "seqkd", "gcd"}
    scores = record["scores"]
    assert scores["full_prompt"]["kl"]["value"] == 0
    assert scores["full_prompt"]["top1_agreement"]["value"] == 1
    assert scores["no_prompt"]["kl"]["value"] > 0
    assert set(scores["gcd"]) >= {"kl", "top1_agreement", "format_validity", "length_ratio"}
    report = (export / "report.md").read_text()
    assert report.startswith(f"# shell: {record['verdict']['word']}")
    for heading in ("Verdict", "Fidelity", "What it saves", "Where student", "What it gives away"):
        assert f"## {heading}" in report
    assert "<script" not in (export / "report.html").read_text()
    # The adapter is the trained one, and its card has the report's figures.
    made = committed / ".work/internalize/shell/models/custom/gcd/adapter"
    weights = "adapter_model.safetensors"
    assert (export / "adapter" / weights).read_bytes() == (made / weights).read_bytes()
    assert json.loads((export / "export.json").read_text())["task"] == "custom"
    card = (export / "README.md").read_text()
    assert card.count("fidelity_") == len(scores["gcd"])
    assert f"{scores['gcd']['kl']['value']:.4g} (" in card
    # Nothing that is tested was trained on.
    folder = committed / ".work/internalize/shell/data"
    trained = [
        json.loads(line)["text"].casefold()
        for line in (folder / "pseudo/custom/inputs.jsonl").read_text().splitlines()
    ]
    replies = [json.loads(line) for line in (export / "replies.jsonl").read_text().splitlines()]
    assert not {one["input"].casefold() for one in replies} & set(trained)
    # The workspace is as it was, and the run is an experiment.
    dirty = subprocess.run(
        ["git", "status", "--porcelain"], cwd=committed, capture_output=True, text=True, check=True
    )
    assert dirty.stdout == ""
    refs = subprocess.run(
        ["git", "for-each-ref"], cwd=committed, capture_output=True, text=True, check=True
    )
    assert "/internalize-shell" in refs.stdout
    again = run(committed)
    assert again.returncode == 1
    assert "exists, and nothing is overwritten" in again.stderr
    assert (export / "report.md").read_text() == report


@pytest.mark.slow
def test_an_edited_prompt_runs_again_and_says_what_changed(committed: Path) -> None:
    """After the test before: the previous version's export is there."""
    prompt = parse_prompt(tiny.PROMPT, "")
    assert prompt[0].role == "system"
    first, rest = tiny.PROMPT.split("\n", 1)
    (committed / "shell.md").write_text(f"{first} Be kind.\n{rest}")
    try:
        done = run(committed, "--name", "shell-2", "--previous", "shell")
    finally:
        (committed / "shell.md").write_text(tiny.PROMPT)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    record = json.loads((committed / "exports/shell-2/record.json").read_text())
    drift = record["drift"]
    assert drift["previous"] == "shell"
    assert not drift["same_prompt"]
    assert drift["same_model"]
    assert drift["inputs"] > 0
    report = (committed / "exports/shell-2/report.md").read_text()
    assert "## Drift since shell" in report
    # The model was not prepared again, nor the base's behaviour: they do not depend on the prompt.
    logs = committed / ".work/internalize/shell-2/logs"
    ran = [path.stem for path in logs.glob("*.log") if "\n> " in f"\n{path.read_text()}"]
    assert not {"prepare_model", "record_base_behaviour"} & set(ran)
    assert "fit@custom-gcd" in ran
