"""`make internalize` in miniature: the real pipeline, from a prompt to a verdict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from gcd.core.prompt import parse_prompt
from tests import tiny
from tests.miniature import ENVIRONMENT, ROOT, make_repository

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
    profile["make_reasons"] = NUMBERS["make_reasons"]
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
    # The base's behaviour comes out of the cache: it does not depend on the prompt. The base model
    # is in no cache, and this clone's commit has no dvc.lock that would know the linked one.
    logs = committed / ".work/internalize/shell-2/logs"
    ran = [path.stem for path in logs.glob("*.log") if "\n> " in f"\n{path.read_text()}"]
    assert "record_base_behaviour" not in ran
    assert "fit@custom-gcd" in ran


@pytest.mark.slow
def test_all_that_can_be_asked_for(committed: Path) -> None:
    """After the first test: on from its adapter, with inputs, one more row, and files to serve."""
    inputs = ["How many files are in /etc?", "Which user am I?"]
    lines = "".join(json.dumps({"input": text}) + "\n" for text in inputs)
    (committed / "mine.jsonl").write_text(lines)
    try:
        done = run(
            committed,
            *("--name", "shell-3", "--previous", "shell", "--warm-start"),
            *("--inputs", "mine.jsonl", "--rows", "seqkd_kld", "--merged", "--gguf", "adapter"),
        )
    finally:
        (committed / "mine.jsonl").unlink()
    if "cannot be downloaded" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    export = committed / "exports/shell-3"
    record = json.loads((export / "record.json").read_text())
    assert record["student"] == "gcd_warm_start"
    assert set(record["methods"]) >= {"seqkd_kld", "gcd_warm_start"}
    assert "gcd" not in record["methods"]
    assert record["own_inputs"] == len(inputs)
    replies = [json.loads(line) for line in (export / "replies.jsonl").read_text().splitlines()]
    assert [one["input"] for one in replies if one["source"] == "user"] == inputs
    assert "went on from the adapter of the version before" in " ".join(
        (export / "report.md").read_text().split()
    )
    # The first step is taken with the earlier adapter's loss, not with that of a fresh one.
    first = {}
    for name, row in (("shell", "gcd"), ("shell-3", "gcd_warm_start")):
        losses = committed / f".work/internalize/{name}/models/custom/{row}/loss.csv"
        first[row] = pd.read_csv(losses)["loss"][0]
    assert first["gcd_warm_start"] < first["gcd"]
    for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors", "adapter.gguf"):
        assert (export / name).stat().st_size > 0


@pytest.mark.slow
def test_a_prompt_alone_without_turns_or_inputs(committed: Path) -> None:
    """Nothing but a system message: inputs are made up from it alone."""
    text = parse_prompt(tiny.PROMPT, "")[0].content
    (committed / "bare.md").write_text(text)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gcd.internalize", "bare.md", "--model", "mine"],
            cwd=committed,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        (committed / "bare.md").unlink()
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    record = json.loads((committed / "exports/bare/record.json").read_text())
    assert record["own_inputs"] == 0
    assert record["held_out"] >= 2
