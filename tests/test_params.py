"""params.yaml is read strictly: the error names the key, the file and what is accepted."""

import re
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.params import SECTIONS, every_section, load_file, read_params
from tests.conftest import ROOT

TEXT = (ROOT / "params.yaml").read_text()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a params.yaml with one text replaced, and make it the one that is read."""
    monkeypatch.chdir(tmp_path)

    def replace(old: str, new: str) -> None:
        assert old in TEXT
        (tmp_path / "params.yaml").write_text(TEXT.replace(old, new, 1))

    return replace


def test_the_repositorys_own_file_is_valid(write):
    write("seed: 0", "seed: 0")
    params = read_params(*SECTIONS, "methods", "methods.gcd", "tasks.os_interaction")
    trained = ["llmlingua2", "icae", "prompt_prepending", "seqkd", "seqkd_kld", "gcd"]
    assert params.methods == ["full_prompt", "no_prompt", *trained]
    assert params.method.sft_weight == pytest.approx(0.7)


def test_a_stage_gets_only_what_it_asked_for(write):
    write("seed: 0", "seed: 0")
    params = read_params("seed")
    assert params.seed == 0
    with pytest.raises(AttributeError):
        _ = params.train


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  seqkd: {}",
            "  seqdk: {}",
            r"unknown key `methods\.seqdk`; accepted, as files of gcd/methods/: .*full_prompt, gcd",
        ),
        (
            "  web_browsing:",
            "  web_surfing:",
            r"unknown key `tasks\.web_surfing`; accepted, as files of gcd/tasks/: custom, os",
        ),
    ],
)
def test_a_key_without_a_module_is_an_error_of_one_line(write, old, new, message):
    write(old, new)
    with pytest.raises(UserError, match=message):
        read_params(*every_section(load_file()))


@pytest.mark.parametrize(
    ("old", "new", "section", "message"),
    [
        (
            "  max_length:",
            "  length: 1\n  max_length:",
            "train",
            r"unknown key `train\.length`; accepted: .*max_length",
        ),
        (
            "      epochs:",
            "      epoch: 1\n      epochs:",
            "tasks.os_interaction.training",
            r"unknown key `tasks\.os_interaction\.training\.epoch`; accepted: epochs, batch_size",
        ),
        (
            "    rank:",
            "    ranks: 1\n    rank:",
            "train",
            r"`train\.lora\.ranks`; accepted: rank, alpha",
        ),
        ("seed: 0", "seeds: 0", "seed", r"unknown key `seeds`; accepted: seed"),
        (
            "  dtype: float32",
            "  dtype: float16",
            "model",
            r"`model\.dtype`.*'float32' or 'bfloat16'.*float16",
        ),
        ("  dtype: float32\n", "", "model", r"key `model\.dtype` is missing"),
        ("seed: 0", "seed: '0'", "seed", r"key `seed`.*integer.*'0'"),
        ("seed: 0", "seed: true", "seed", r"key `seed`.*integer"),
        (
            "sft_weight: 0.7",
            "sft_weight: 1.7",
            "methods.gcd",
            r"`methods\.gcd\.sft_weight`.*less than or equal to 1",
        ),
        ("seed: 0", "seed: [0", "seed", r"not valid YAML"),
        ("seed: 0\n", "", "seed", r"key `seed` is missing"),
    ],
)
def test_mistakes_are_named(write, old, new, section, message):
    write(old, new)
    with pytest.raises(UserError, match=message) as raised:
        read_params(section)
    assert "params.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_scientific_notation_is_a_number(write):
    """PyYAML reads 1e-4 as text; the parser DVC uses does not."""
    old = re.search(r"\n  learning_rate: \S+", TEXT)
    assert old
    write(old[0], "\n  learning_rate: 1e-4")
    assert read_params("train").train.learning_rate == pytest.approx(1e-4)


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        read_params("seed")
