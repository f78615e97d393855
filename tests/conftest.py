"""Shared by all tests: the tiny model, once a session, and the repository's root."""

from pathlib import Path
from typing import Any

import pytest

import gcd.core  # noqa: F401  (fixes the arithmetic mode before torch is imported)
from gcd.tiny_model import OS_INTERACTION
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.make_tokenizer()


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return tiny.make_model(tokenizer)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that has learnt the protocol of OS interaction."""
    folder = tmp_path_factory.mktemp("taught")
    tiny.save_taught(OS_INTERACTION, folder)
    return folder
