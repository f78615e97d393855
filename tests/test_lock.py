"""dvc.lock is written by its lines, and stays what DVC itself would have written."""

from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml, parse_yaml_for_update

from gcd.core.errors import UserError
from gcd.repro.lock import LOCK, sort_lock, update_lock
from tests.conftest import ROOT

TEXT = (ROOT / "dvc.lock").read_text()
NAMES = list(parse_yaml(TEXT, "dvc.lock")["stages"])
# As DVC makes it of a stage; an empty line, a number of other type, and a long word.
CHANGED = {
    "cmd": "python -m stages.x " + "a-long-argument " * 9,
    "deps": [{"path": "x", "hash": "md5", "md5": "1" * 32, "size": 7}],
    "params": {"params.yaml": {"x.text": "two\n\nparagraphs: 'so'", "x.rate": 1e-05, "y": "7"}},
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [NAMES[0], NAMES[20], NAMES[-1], "new@one-a"])
def test_one_stage_changes_as_dvc_changes_it(name: str) -> None:
    LOCK.write_text(TEXT)
    lock = parse_yaml_for_update(TEXT, "dvc.lock")
    lock["stages"].update({name: CHANGED})
    for _ in range(2):  # what was written is read again
        update_lock({name: CHANGED})
        assert LOCK.read_text() == dumps_yaml(lock)


def test_the_first_stage_makes_the_file() -> None:
    update_lock({"a": CHANGED})
    assert LOCK.read_text() == dumps_yaml({"schema": "2.0", "stages": {"a": CHANGED}})


def test_lock_is_sorted_and_else_unchanged() -> None:
    sort_lock(["a"])  # a run that failed before there was one
    assert not LOCK.exists()
    LOCK.write_text(TEXT)
    sort_lock([*reversed(NAMES), "unknown"])
    assert LOCK.read_text() != TEXT
    sort_lock(NAMES)
    assert LOCK.read_text() == TEXT
    sort_lock(NAMES[5:])  # those that are not named come last
    assert list(parse_yaml(LOCK.read_text(), LOCK)["stages"]) == NAMES[5:] + NAMES[:5]


@pytest.mark.parametrize(
    "text", ["", TEXT + "datasets: []\n", TEXT.replace("  fit@", "fit@", 1), "# mine\n" + TEXT]
)
def test_what_dvc_does_not_write_is_left_alone(text: str) -> None:
    LOCK.write_text(text)
    with pytest.raises(UserError, match=r"dvc\.lock: expected .* git checkout"):
        update_lock({"a": CHANGED})
    assert LOCK.read_text() == text
