"""Real benchmark data, which is not part of the repository: tests skip without it."""

import os
from pathlib import Path

import pytest


def realdata(*parts: str) -> Path:
    folder = os.environ.get("GCD_REALDATA")
    if folder is None:
        pytest.skip("set GCD_REALDATA to the folder with AgentBench's files to run this")
    return Path(folder, "os", *parts)
