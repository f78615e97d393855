"""AgentBench's own files: read in its forms, played with its defects, nothing left out silently."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.tasks import os_interaction
from gcd.tasks.os_interaction import OsEnvironment, OsSample, Settings
from gcd.tasks.os_interaction.files import read_files
from tests.conftest import ROOT

with contextlib.chdir(ROOT):
    SETTINGS: Settings = read_params("tasks.os_interaction").task
INTEGER = {"language": "python", "file": "check/integer-match.py"}


def source(**keys: Any) -> dict[str, Any]:
    """A sample in AgentBench's form; None takes a key away."""
    whole = {"description": "What?", "evaluation": {"match": "4"}} | keys
    return {key: value for key, value in whole.items() if value is not None}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def use_files(path: Path, **keys: Any) -> Settings:
    return SETTINGS.model_copy(update={"data": "files", "data_path": str(path), **keys})


def read_one(tmp_path: Path, one: Any, scripts: Path = Path("none")) -> OsSample:
    """The only sample of a file; raises AssertionError with the reason if it was left out."""
    found, skipped = read_files(write(tmp_path / "x.json", one), scripts, in_sandbox=True)
    assert not skipped, skipped
    return OsSample(index=found[0].name, groups={}, source=found[0].source)


def reason(tmp_path: Path, one: Any, scripts: Path = Path("none")) -> str:
    found, skipped = read_files(write(tmp_path / "x.json", one), scripts, in_sandbox=True)
    assert not found
    return skipped[0].reason


# Files, and the names of samples.


def test_names_are_agentbenchs(tmp_path: Path) -> None:
    write(tmp_path / "dev.json", [source(), source()])
    write(tmp_path / "4/N41.json", source())  # one sample, without a list
    write(tmp_path / "5/new.json", [source()])
    write(tmp_path / "6/new.json", [source()])
    write(tmp_path / "train_0317/training.json", [source()])
    found, skipped = read_files(tmp_path, tmp_path / "none", in_sandbox=True)
    assert not skipped
    assert [one.name for one in found] == [
        "std-004-N41-00000",
        "std-005-new-00000",
        "std-006-new-00000",
        "dev-001-dev-00000",
        "dev-001-dev-00001",
        "train_0317-training-00000",
    ]
    assert found[0].family == "std-004-N41"


def test_the_test_split_is_read_and_the_others_stay_generated(tmp_path: Path) -> None:
    bad = source(evaluation={})
    path = write(tmp_path / "dev.json", [bad, *[source(description=f"{n}") for n in range(5)]])
    test = SETTINGS.test.model_copy(update={"count": 3})
    skipped = os_interaction.write_samples(use_files(path, test=test), tmp_path / "out")
    assert [one.index for one in skipped] == ["dev-001-dev-00000"]
    samples = os_interaction.read_samples(tmp_path / "out/test.jsonl")
    assert [one.problem for one in samples] == ["0", "1", "2"]
    assert {tuple(one.groups.items()) for one in samples} == {(("family", "dev-001-dev"),)}
    os_interaction.write_samples(SETTINGS, tmp_path / "generated")
    other = os_interaction.read_samples(tmp_path / "out/development.jsonl")
    assert len(other) == SETTINGS.development.count
    assert other[0].groups.keys() == {"tier", "family"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("3", "got int"), ([], "none of the 0"), ([3], "got int")],
)
def test_a_file_without_samples_is_an_error(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "x.json", content)
    with pytest.raises(UserError, match=message):
        os_interaction.write_samples(use_files(path), tmp_path / "out")


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    for settings in (use_files(tmp_path / "no.json"), use_files(tmp_path)):
        with pytest.raises(UserError, match="expected AgentBench's OS samples"):
            os_interaction.write_samples(settings, tmp_path / "out")


# What is left out, and why.


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (3, "got int"),
        (source(description=None), "key `description`"),
        (source(evaluation=None), "key `evaluation`"),
        (source(evaluation={}), "expected `match` or `check`"),
        (source(evaluation={"match": 4}), "key `evaluation.match`"),
        (source(evaluation={"match": {"strip": True}}), "key `evaluation.match`"),
        (source(evaluation={"match": {"regex": "("}}), "key `evaluation.match.regex`"),
        (source(evaluation={"check": []}), "key `evaluation.check`"),
        (source(evaluation={"check": [None]}), "`evaluation.example`, which is missing"),
        (source(evaluation={"check": {}}), "key `evaluation.check.0`"),
        (source(evaluation={"check": {"language": "c", "code": ""}}), "check.0.language"),
        (source(evaluation={"check": {"file": "check/0.sh"}}), "set `scripts_path`"),
        (source(create={"init": 3}), "key `create.init"),
        (source(create={"init": ["true", {"file": "init/a.sh"}]}), "key `create.init.1`"),
        (source(create={"image": "mine"}), "the image 'mine'"),
        (source(create={"init": "apt update && apt install sudo -y"}), "needs a network"),
        (source(create={"init": "useradd x && chown x /f"}), "needs several users"),
        (source(start="su - jack"), "needs several users"),
        (source(evaluation={"check": "(runuser -l jack -c true)"}), "needs several users"),
    ],
)
def test_the_reason_names_file_sample_and_key(tmp_path: Path, one: Any, message: str) -> None:
    text = reason(tmp_path, [one])
    assert text.startswith("x.json[0]: ")
    assert message in text


@pytest.mark.parametrize(
    "init",
    [
        "[ -x $(command -v npm) ]",
        "echo apt install nothing",
        "chown root /tmp",
        "useradd -m jack",
        "grep su /etc/passwd; ls /usr/bin/su",
        "# chown jack",
    ],
)
def test_what_only_sounds_impossible_is_kept(tmp_path: Path, init: str) -> None:
    assert read_one(tmp_path, source(create={"init": init}))


def test_a_program_that_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    assert "the program `python3`" in reason(tmp_path, source(start="python3 -c 1 &"))
    assert read_one(tmp_path, source(start="echo no python3 here"))


def test_another_backend_has_its_own_means(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", source(start="su - jack"))
    assert len(read_files(path, tmp_path / "none", in_sandbox=False)[0]) == 1


# Scripts that are files.


def test_scripts_are_found_by_the_folder_of_the_data(tmp_path: Path) -> None:
    scripts = tmp_path / "checkout/data/os_interaction/scripts"
    write(scripts / "3/init/a.sh", "echo three")
    write(scripts / "4/init/a.sh", "echo four")
    write(scripts / "dev/init/a.sh", "echo dev")
    for place in ("3/x.json", "4/x.json", "dev.json"):
        write(tmp_path / "data" / place, source(create={"init": {"file": "init/a.sh"}}))
    for path in (tmp_path / "checkout", scripts):
        found, _ = read_files(tmp_path / "data", path, in_sandbox=True)
        codes = [one.source["create"]["init"]["code"] for one in found]
        assert codes == ["echo three", "echo four", "echo dev"]


def test_a_script_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "secret", "x")
    (tmp_path / "scripts").mkdir()
    one = source(start={"file": "../secret"})
    assert "is not in" in reason(tmp_path, one, tmp_path / "scripts")


def play(one: OsSample, *replies: str) -> tuple[str, float]:
    with OsEnvironment(one, SETTINGS) as environment:
        for reply in replies:
            environment.step(reply)
        return environment.status, environment.score


def test_native_checks_need_no_checkout(tmp_path: Path) -> None:
    evaluation = {"check": [None, INTEGER], "example": "echo 4"}
    one = read_one(tmp_path, source(evaluation=evaluation))
    assert play(one, "Act: answer(4)") == ("completed", 1.0)
    assert play(one, "Act: answer(5)") == ("completed", 0.0)


def test_a_script_of_the_checkout_is_played(tmp_path: Path) -> None:
    write(tmp_path / "scripts/check/0.sh", '[ "$1" = walnut ]')
    evaluation = {"check": {"file": "check/0.sh"}}
    one = read_one(tmp_path, source(evaluation=evaluation), tmp_path / "scripts")
    assert play(one, "Act: answer(walnut)") == ("completed", 1.0)
    assert play(one, "Act: answer(oak)") == ("completed", 0.0)


# Defects of AgentBench's samples are played as there.


def test_a_redirection_to_a_number_opens_a_file_descriptor(tmp_path: Path) -> None:
    """`echo 123>file` makes an empty file; with a number too high the sample cannot start."""
    empty = source(create={"init": "echo 123>/f; [ -f /f -a ! -s /f ]"})
    assert play(read_one(tmp_path, empty), "Act: answer(4)") == ("completed", 1.0)
    broken = source(create={"init": "echo 123321>/var/tmp.log"})
    assert play(read_one(tmp_path, broken)) == ("unknown", 0.0)


def test_a_list_in_create_has_no_init(tmp_path: Path) -> None:
    one = read_one(tmp_path, source(create=[None, INTEGER]))
    assert play(one, "Act: answer(4)") == ("completed", 1.0)


def test_match_decides_where_there_are_both(tmp_path: Path) -> None:
    evaluation = {"match": "4", "check": "exit 1"}
    one = read_one(tmp_path, source(evaluation=evaluation, example={"code": "x"}))
    assert play(one, "Act: answer(4)") == ("completed", 1.0)
