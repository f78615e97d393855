"""Which model writes what: the names that an engine can know, and the four steps on a real server.

The steps run as a user runs them, `python -m stages.…`, in a copy of the project without any model
of its own: all that is written comes from llama.cpp's server.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd import tiny_model
from gcd.core.base_model import location
from gcd.core.errors import UserError
from gcd.core.language_model import LanguageModel
from gcd.core.params import read_params
from gcd.core.records import PairedOutput, PseudoConversation, PseudoInput, Reason, read_records
from gcd.synthesis.generation import check_models, load_generator
from stages import check_params
from tests import tiny
from tests.conftest import ROOT
from tests.llama_server import Relay, relaying, serving
from tests.tiny import user

Edit = Callable[[dict[str, Any]], None]
STAGES = [
    "make_pseudo_inputs",
    "make_paired_outputs",
    "make_reasons",
    "make_pseudo_conversations",
]


@pytest.mark.parametrize(
    ("engine", "models", "message"),
    [
        ("transformers", ("base", "base"), None),
        ("transformers", ("base", "gcd"), None),  # a folder
        ("transformers", ("base", "owner/name@main"), None),
        ("transformers", ("base", "owner/name"), r"key `b`: .*owner/name@revision.*names no rev"),
        ("openai", ("owner/name", "owner/name"), None),
        ("openai", ("owner/name", "base"), None),
        ("openai", ("base", "base"), r"all of `a`, `b` are `base`.*Name the server's model"),
    ],
)
def test_names_of_models(
    monkeypatch, engine: Any, models: tuple[str, str], message: str | None
) -> None:
    monkeypatch.chdir(ROOT)
    named = dict(zip(("a", "b"), models, strict=True))
    if message is None:
        check_models(engine, named)
    else:
        with pytest.raises(UserError, match=message):
            check_models(engine, named)


def use_server(address: str, **changes: Any) -> Edit:
    def edit(params: dict[str, Any]) -> None:
        params["generation"]["engine"] = "openai"
        params["generation_server"] |= {"address": address, "retries": 0, **changes}
        for stage in STAGES:
            params[stage] |= {"model": "smollm2", "minimum": 1}

    return edit


def project(folder: Path, *edits: Edit) -> Path:
    """A copy of the project, with changed parameters."""
    folder.mkdir(exist_ok=True)
    for name in ("gcd", "stages", "data/prompts"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore, dirs_exist_ok=True)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for edit in edits:
        edit(params)
    yaml.dump(params, folder / "params.yaml")
    (folder / "data/prompts/os_interaction.md").write_text(tiny.PROMPT)
    return folder


def command(folder: Path, stage: str, *arguments: str) -> dict[str, Any]:
    """Arguments of subprocess for a stage in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", f"stages.{stage}", *arguments]
    return {"args": run, "cwd": folder, "env": environment, "text": True}


def call(folder: Path, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(folder, stage, *arguments), capture_output=True, check=False)


def test_check_params_finds_a_server_that_no_stage_uses(tmp_path: Path, monkeypatch) -> None:
    def only_engine(params: dict[str, Any]) -> None:
        params["generation"]["engine"] = "openai"

    monkeypatch.chdir(project(tmp_path, only_engine))
    with pytest.raises(UserError, match=r"all of `make_pseudo_inputs\.model`, `make_paired_out"):
        check_params.main()
    project(tmp_path, use_server("http://localhost:1/v1"))
    check_params.main()


def test_another_model_than_base_is_loaded_from_its_folder(
    tmp_path: Path, monkeypatch, tokenizer
) -> None:
    """Two random models of different sizes: each folder gives its own, ready to write."""
    sizes = {"one": 64, "two": 32}
    for name, size in sizes.items():
        source = tiny.SOURCE.model_copy(update={"hidden_size": size})
        tiny.save(tiny_model.make_model(tokenizer, source), tokenizer, tmp_path / name)
    monkeypatch.chdir(project(tmp_path))
    params = read_params("generation", "model")
    for name, size in sizes.items():
        work = tmp_path / f"work_{name}"
        work.mkdir()
        model = load_generator(params, name, work)
        assert isinstance(model, LanguageModel)
        assert model.model.config.hidden_size == size
        [reply] = model.generate([], [[user("apple")]], max_new_tokens=9, progress="test")
        assert reply and reply.reply_tokens > 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"The model empty cannot be loaded: .*Check its name"):
        load_generator(params, "empty", tmp_path)


def test_a_name_on_the_hub_is_pinned() -> None:
    assert location("owner/name@main") == {
        "pretrained_model_name_or_path": "owner/name",
        "revision": "main",
    }


def test_where_the_server_is_changes_no_work_folder(tmp_path: Path, monkeypatch) -> None:
    """A run that was told to go slower goes on with the replies that it has."""
    found = []
    for pace in (None, 30.0):
        edit = use_server("http://localhost:1/v1", requests_per_minute=pace)
        monkeypatch.chdir(project(tmp_path, edit))
        found.append(read_params("seed", "model", "generation", "make_reasons").fingerprint())
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def relay(gguf: Path) -> Iterator[Relay]:
    pytest.importorskip("xllamacpp", reason="no wheel with llama.cpp's server for this system")
    with serving(gguf) as address, relaying(address) as relay:
        yield relay


def small(params: dict[str, Any]) -> None:
    """Few and short texts of the real model."""
    params["teacher"]["max_new_tokens"] = 72
    params["make_reasons"]["max_new_tokens"] = 400
    params["tasks"]["os_interaction"]["synthesis"] |= {
        "inputs": 12,
        "per_request": 3,
        "input_tokens": 160,
        "reasons": 4,
        "max_turns": 2,
    }


@pytest.mark.slow
def test_the_four_steps_on_a_server_killed_and_continued(tmp_path: Path, relay: Relay) -> None:
    folder = project(tmp_path / "copy", use_server(relay.address, parallel_requests=3), small)
    (folder / "models/base").mkdir(parents=True)
    (folder / "models/base/model.json").write_text("{}")  # an input of the stages, not read here
    for stage in ("prepare", "make_pseudo_inputs"):
        done = call(folder, stage, "os_interaction")
        assert done.returncode == 0, done.stderr
    pseudo = folder / "data/pseudo/os_interaction"
    inputs = read_records(pseudo / "inputs.jsonl", PseudoInput)
    assert len(inputs) == 12

    # Two for each input, the second half without the prompt. Four are answered, then comes a kill.
    relay.requests.clear()
    held = threading.Event()
    release = threading.Event()

    def hold(number: int) -> None:
        if number > 4:
            held.set()
            release.wait()

    relay.hold = hold
    with subprocess.Popen(
        **command(folder, "make_paired_outputs", "os_interaction"), stderr=subprocess.PIPE
    ) as process:
        try:
            assert held.wait(timeout=600)
            journal_of_four(folder)
        finally:
            process.send_signal(signal.SIGKILL)
            release.set()
    answered = relay.requests[:4]
    relay.requests.clear()
    relay.hold = lambda number: None
    # With another pace: where and how fast is no part of the work.
    project(folder, use_server(relay.address, parallel_requests=2), small)
    done = call(folder, "make_paired_outputs", "os_interaction")
    assert done.returncode == 0, done.stderr
    assert "continuing what an interrupted run left" in done.stderr
    assert len(relay.requests) == 2 * len(inputs) - len(answered)
    assert not [request for request in relay.requests if request in answered]
    assert relay.most_under_way == 3
    pairs = read_records(pseudo / "paired_outputs.jsonl", PairedOutput)
    assert pairs

    for stage in ("make_reasons", "make_pseudo_conversations"):
        done = call(folder, stage, "os_interaction")
        assert done.returncode == 0, done.stderr
    reasons = read_records(pseudo / "reasons.jsonl", Reason)
    assert {reason.index for reason in reasons} <= {pair.index for pair in pairs}
    assert reasons
    conversations = read_records(pseudo / "conversations.jsonl", PseudoConversation)
    assert [conversation.index for conversation in conversations] == [pair.index for pair in pairs]
    played = [conversation for conversation in conversations if len(conversation.messages) > 2]
    assert all(item.messages[2].content.startswith("The output of the OS:") for item in played)
    assert not (folder / ".work/make_reasons-os_interaction").exists()


def journal_of_four(folder: Path) -> None:
    """Wait until the four replies that were let through are on disk."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journals = folder.glob(".work/make_paired_outputs-*/*/replies.jsonl")
        if [journal.read_bytes().count(b"\n") for journal in journals] == [4]:
            return
        time.sleep(0.1)
    pytest.fail("the replies that arrived are not in the journal")
