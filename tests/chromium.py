"""Headless Chromium for tests of pages: what is on a page when its scripts have run."""

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def dump_page(address: str, profile: Path, width: int = 1280) -> str:
    """The page's HTML after five (virtual) seconds; skips the test where there is no Chromium.

    `profile` is an empty folder for the browser's own files.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",  # it refuses to run as root with one; the pages are our own
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
            f"--window-size={width},1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
