"""Profiles change what they name, and nothing else; what they name exists and is valid."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.profiles import apply_profile, use_profile
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()
PROFILES = ROOT / "profiles"
NAMES = sorted(path.stem for path in PROFILES.glob("*.yaml"))


def flat(section: dict[str, Any], above: str = "") -> dict[str, object]:
    """{dotted key: value} of a nested mapping."""
    found: dict[str, object] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_valid_and_does_what_it_says(name: str) -> None:
    """`apply_profile` checks the result as `check_params` does."""
    yaml = YAML(typ="safe")
    before, after = flat(yaml.load(TEXT)), flat(yaml.load(apply_profile(TEXT, name, PROFILES)))
    changes = flat(yaml.load(PROFILES / f"{name}.yaml"))
    assert after == before | changes


@pytest.mark.parametrize("name", NAMES)
def test_comments_stay_and_lines_that_are_not_named(name: str) -> None:
    """As many lines as before, the same comments, and no more lines changed than keys named."""
    after = apply_profile(TEXT, name, PROFILES)
    lines = list(zip(TEXT.splitlines(), after.splitlines(), strict=True))
    assert all(old == new for old, new in lines if old.lstrip().startswith("#"))
    changed = [old for old, new in lines if old != new]
    assert len(changed) <= len(flat(YAML(typ="safe").load(PROFILES / f"{name}.yaml")))


def test_the_default_changes_not_a_byte() -> None:
    assert apply_profile(TEXT, "default", PROFILES) == TEXT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 1\n", r"mine\.yaml: unknown key `seeds`; accepted: seed, prepare_model"),
        (
            "train:\n  lora:\n    ranks: 1\n",
            r"unknown key `train\.lora\.ranks`; accepted: rank, al",
        ),
        ("train: 1\n", r"mine\.yaml: key `train`: expected a mapping, got 1"),
        ("seed:\n  a: 1\n", r"mine\.yaml: key `seed`: expected one value, got"),
        ("seed: one\n", r"key `seed`: .*integer"),
        ("- seed\n", r"mine\.yaml: expected a mapping of keys of params\.yaml"),
        ("seed: [1\n", r"mine\.yaml: not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        apply_profile(TEXT, "mine", tmp_path)


def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such profile; there are .*smoke"):
        apply_profile(TEXT, "nowhere", PROFILES)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with params.yaml and two profiles, in the current folder."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/one.yaml").write_text("seed: 1\n")
    (tmp_path / "profiles/two.yaml").write_text("teacher:\n  max_new_tokens: 2\n")
    (tmp_path / "params.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def test_a_profile_takes_the_place_of_another(repository: Path) -> None:
    """Profiles do not pile up: each changes the committed file."""
    use_profile("one")
    use_profile("one")
    use_profile("two")
    params = YAML(typ="safe").load(repository / "params.yaml")
    assert params["seed"] == 0
    assert params["teacher"]["max_new_tokens"] == 2


def test_changes_of_ones_own_are_not_overwritten(repository: Path) -> None:
    own = TEXT.replace("seed: 0", "seed: 7", 1)
    (repository / "params.yaml").write_text(own)
    with pytest.raises(UserError, match=r"Commit your changes first, or .*git checkout params"):
        use_profile("one")
    assert (repository / "params.yaml").read_text() == own


def test_without_a_commit_there_is_nothing_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"the committed params\.yaml, and there is none"):
        use_profile("smoke")
