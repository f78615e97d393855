"""The task without an environment: whose inputs are tested, and that nothing is in two places."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.interfaces import load_task
from gcd.core.params import check_section
from gcd.core.records import read_records
from gcd.profiles import apply_profile
from gcd.tasks.custom.inputs import Input, inputs_text, read_lines
from tests.conftest import ROOT

TASK = load_task("custom")
PROMPT = """\
Answer in one word.
<!-- user -->
Is it day?
<!-- assistant -->
Yes.
<!-- user -->
Two
lines?
<!-- assistant -->
No.
"""
OWN = ["Is it  night?", "Where\nam I?", "Is it day?"]
MADE = [f"Question {number}?" for number in range(9)] + ["Where am I?"]


def settings(**counts: int) -> Any:
    """The profile's, with the counts of splits."""
    text = apply_profile((ROOT / "params.yaml").read_text(), "internalize", ROOT / "profiles")
    section = YAML(typ="safe").load(text)["tasks"]["custom"]
    for name, count in counts.items():
        section[name]["count"] = count
    return check_section("tasks.custom", TASK.Settings, section)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's folder with a prompt and inputs of both kinds."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data/prompts/custom"
    data.mkdir(parents=True)
    (data / "prompt.md").write_text(PROMPT)
    (data / "inputs.jsonl").write_text(inputs_text(OWN))
    (data / "held_out.jsonl").write_text(inputs_text(MADE))
    return tmp_path


def written(folder: Path, **counts: int) -> dict[str, list[Input]]:
    out = folder / "out"
    assert TASK.write_samples(settings(**counts), out) == []
    names = ("demonstrations", "development", "test")
    return {name: read_records(out / f"{name}.jsonl", Input) for name in names}


def test_the_users_inputs_are_shown_and_tested_and_no_input_is_in_two_splits(folder: Path) -> None:
    found = written(folder, development=2)
    shown = [one.problem for one in found["demonstrations"]]
    assert shown == ["Is it night?", "Where am I?", "Is it day?", "Two lines?"]
    tested = [one.problem for one in found["test"]]
    assert tested[:3] == ["Is it night?", "Where am I?", "Is it day?"]
    assert len(set(tested)) == len(tested)
    developed = [one.problem for one in found["development"]]
    assert len(developed) == 2
    assert not set(developed) & set(tested)
    assert {*developed, *tested} == {*shown[:3], *(text for text in MADE)}
    # As they were written: only what stands in a list is on one line.
    assert found["test"][1].text == "Where\nam I?"


def test_where_there_are_too_many_the_users_own_come_first_and_the_seed_draws(folder: Path) -> None:
    one = written(folder, development=1, test=5)
    assert [sample.source for sample in one["test"]] == ["user"] * 3 + ["synthesised"] * 2
    assert written(folder, development=1, test=5) == one
    assert written(folder, development=1, test=4)["test"] != one["test"]


def test_without_inputs_the_prompt_demonstrates(folder: Path) -> None:
    for name in ("inputs", "held_out"):
        (folder / f"data/prompts/custom/{name}.jsonl").write_text("")
    found = written(folder)
    assert [one.problem for one in found["demonstrations"]] == ["Is it day?", "Two lines?"]
    assert found["development"] == found["test"] == []


def test_an_episode_is_one_turn_and_silence_is_no_reply(folder: Path) -> None:
    sample = written(folder)["test"][1]
    for reply, status, score in (("No.", "completed", 1.0), (" ", "agent invalid action", 0.0)):
        with TASK.start(sample, settings()) as environment:
            assert [one.content for one in environment.messages] == ["Where\nam I?"]
            assert environment.step(reply) is None
            assert (environment.status, environment.score) == (status, score)
    action = TASK.parse_action(" {}\n")
    assert action is not None
    assert action.content == "{}"
    assert TASK.is_final(action)


def test_inputs_survive_a_file(tmp_path: Path) -> None:
    texts = ["ä\u2028b", "line\nbreak", '"quoted"', "plain"]
    path = tmp_path / "inputs.jsonl"
    path.write_text(inputs_text(texts))
    assert read_lines(path) == texts
    path.write_bytes(b"\xef\xbb\xbf" + b'{"input": "with a byte order mark"}\r\n')
    assert read_lines(path) == ["with a byte order mark"]
    path.write_text("")
    assert read_lines(path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Where am I?", r'line 2: expected one JSON object {"input": "…"}; Invalid JSON'),
        ("", r"line 2: expected one JSON object"),
        ('"text"', r"line 2: .*object"),
        ('{"inputs": "a"}', r"line 2: .*input: Field required"),
        ('{"input": "a", "output": "b"}', r"line 2: .*output: Extra inputs are not permitted"),
        ('{"input": 3}', r"line 2: .*input: Input should be a valid string"),
        ('{"input": "  "}', r"line 2: .* with a text; got '  '"),
        (json.dumps({"input": "a\0b"}), r"line 2: .* with a text"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text(f'{{"input": "fine"}}\n{line}\n{{"input": "fine, too"}}\n')
    with pytest.raises(UserError, match=message) as raised:
        read_lines(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read \(No such file"):
        read_lines(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"input": "\xe4"}\n')
    with pytest.raises(UserError, match=r"latin\.jsonl: not UTF-8 text \(byte 11\)"):
        read_lines(tmp_path / "latin.jsonl")


def test_the_example_is_as_the_program_asks_for_it() -> None:
    texts = read_lines(ROOT / "examples/support/inputs.jsonl")
    assert len(texts) == len(set(texts)) == 10
    assert all(len(text) <= settings().synthesis.input_characters for text in texts)
