"""Profiles change what they name, and nothing else; what they name exists and is valid."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.profiles import apply_profile, use_profile
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()
PARAMS = YAML(typ="safe").load(TEXT)
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


def taken_away(name: str) -> list[str]:
    """The tasks and methods, by dotted key, that a profile takes away."""
    profile = YAML(typ="safe").load(PROFILES / f"{name}.yaml")
    return [
        f"{group}.{key}"
        for group in ("tasks", "methods")
        for key, value in profile.get(group, {}).items()
        if value is None
    ]


def comments(text: str) -> list[tuple[str, str]]:
    """Each comment with the key of the line that follows it."""
    lines = text.splitlines()
    found = []
    for place, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            following = (other for other in lines[place:] if not other.lstrip().startswith("#"))
            found.append((line, next(following).partition(":")[0]))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_valid_and_does_what_it_says(name: str) -> None:
    """`apply_profile` checks the result as `check_params` does."""
    yaml = YAML(typ="safe")
    before, after = flat(yaml.load(TEXT)), flat(yaml.load(apply_profile(TEXT, name, PROFILES)))
    changes = flat(yaml.load(PROFILES / f"{name}.yaml"))
    gone = tuple(f"{key}." for key in taken_away(name))
    changes = {key: value for key, value in changes.items() if f"{key}." not in gone}
    divided = {key.rpartition(".")[0] for key in changes}  # one number that is now one for each
    kept = {key: value for key, value in before.items() if key not in divided}
    kept = {key: value for key, value in kept.items() if not f"{key}.".startswith(gone)}
    assert after == kept | changes


@pytest.mark.parametrize("name", NAMES)
def test_comments_stay_and_lines_that_are_not_named(name: str) -> None:
    """The same comments in the same sections, and no more lines changed than keys named."""
    after = apply_profile(TEXT, name, PROFILES)
    text = TEXT
    for key in taken_away(name):
        module = key.partition(".")[2]
        text = re.sub(rf"(?ms)^  {module}:.*?(?=^ {{0,2}}\S)", "", text)
    # The first of a section is said of all of them: another may stand below it now.
    assert [line for line, _ in comments(after)] == [line for line, _ in comments(text)]
    if text == TEXT:
        assert comments(after) == comments(text)
    lines = set(after.splitlines())
    gone = [line for line in text.splitlines() if line not in lines]
    assert len(gone) <= len(flat(YAML(typ="safe").load(PROFILES / f"{name}.yaml")))


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
        ("seed:\n  a: 1\n", r"key `seed.*integer; got {'a': 1}"),
        ("methods:\n  mine: {}\n", r"mine\.yaml: unknown key `methods\.mine`; accepted: .*gcd_kld"),
        (
            "methods:\n  soft_prompt:\n    slots:\n      - 2\n",
            r"`methods\.soft_prompt\.learning_rate",
        ),
        ("methods: 1\n", r"mine\.yaml: key `methods`: expected a mapping, got 1"),
        (
            "tasks:\n  mine: {}\n",
            r"mine\.yaml: unknown key `tasks\.mine`; accepted: custom, os_",
        ),
        (
            "methods:\n  soft_prompt: null\n",
            r"unknown key `methods\.soft_prompt`; accepted: full_p",
        ),
        ("seed: null\n", r"key `seed`: .*integer; got None"),
        ("seed: one\n", r"key `seed`: .*integer"),
        ("- seed\n", r"mine\.yaml: expected a mapping of keys of params\.yaml"),
        ("seed: [1\n", r"mine\.yaml: not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        apply_profile(TEXT, "mine", tmp_path)


def test_a_profile_may_bring_methods(tmp_path: Path) -> None:
    """Whole ones, behind those of params.yaml and in the profile's order: that is the tables'."""
    (tmp_path / "mine.yaml").write_text(
        "methods:\n  soft_prompt:\n    slots:\n      - 2\n    learning_rate: 0.1\n"
        "  gcd:\n    pg_every: 1\n"
    )
    after = apply_profile(TEXT, "mine", tmp_path)
    params = YAML(typ="safe").load(after)
    before = YAML(typ="safe").load(TEXT)
    assert list(params) == list(before)
    assert list(params["methods"]) == [*before["methods"], "soft_prompt"]
    assert params["methods"]["soft_prompt"] == {"slots": [2], "learning_rate": 0.1}
    assert params["methods"]["gcd"]["pg_every"] == 1
    # Written as params.yaml itself is: the same file without these lines and that change.
    added = "  soft_prompt:\n    slots:\n      - 2\n    learning_rate: 0.1\n"
    assert after.replace(added, "").replace("pg_every: 1", "pg_every: 6") == TEXT


def test_a_profile_may_take_tasks_and_methods_away(tmp_path: Path) -> None:
    """Only there is `null` an absence: elsewhere it is a value."""
    (tmp_path / "mine.yaml").write_text(
        "tasks:\n  os_interaction: null\n"
        "methods:\n  full_prompt: null\n  gcd: null\n  seqkd_kld: null\ntrain:\n  max_length: 9\n"
    )
    after = YAML(typ="safe").load(apply_profile(TEXT, "mine", tmp_path))
    assert list(after) == list(PARAMS)
    assert list(after["tasks"]) == ["web_browsing", "web_shopping"]
    gone = ("full_prompt", "gcd", "seqkd_kld")
    assert list(after["methods"]) == [name for name in PARAMS["methods"] if name not in gone]
    for group in ("tasks", "methods"):
        for name, section in after[group].items():
            assert section == PARAMS[group][name]
    assert after["generation"] == PARAMS["generation"]


def test_a_number_may_become_one_for_each_task(tmp_path: Path) -> None:
    """λ by task; a key that is no number stays an error."""
    weights = {"os_interaction": 0.7, "web_browsing": 0.3, "web_shopping": 0.7}
    lines = "".join(f"      {task}: {weight}\n" for task, weight in weights.items())
    (tmp_path / "mine.yaml").write_text(f"methods:\n  gcd:\n    sft_weight:\n{lines}")
    after = apply_profile(TEXT, "mine", tmp_path)
    assert YAML(typ="safe").load(after)["methods"]["gcd"]["sft_weight"] == weights
    assert comments(after)[-1] == comments(TEXT)[-1]
    (tmp_path / "mine.yaml").write_text(
        f"methods:\n  gcd:\n    sft_weight:\n{lines}".replace("0.3", "one")
    )
    with pytest.raises(UserError, match=r"`methods\.gcd\.sft_weight\.web_browsing`"):
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
