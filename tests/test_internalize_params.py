"""internalize.yaml, and the params.yaml of a run."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.internalize.checks import check
from gcd.internalize.run_params import held_out_params, run_params
from gcd.internalize.settings import HeldOutSettings, read_settings
from tests.conftest import ROOT
from tests.test_internalize_checks import LIMITS, SETTINGS, TEXT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prompt:\n", "prompts:\n", r"internalize\.yaml: unknown key `prompts`|key `prompt` is"),
        ("  turns: 3\n", "", r"key `traffic\.turns` is missing"),
        ("  turns: 3", "  turns: 0", r"key `traffic\.turns`: .*greater than 0"),
        ("    keep: 0.9\n    care: 0.75", "    keep: 9.0\n    care: 0.75", r"top1_agreement\.keep"),
        ("    keep: 0.9\n    care: 0.75", "    keep: 0.7\n    care: 0.75", r"`verdict\.top1_agr"),
        (
            "    keep: 0.2\n    care: 0.6",
            "    keep: 0.7\n    care: 0.6",
            r"`verdict\.kl`: expected `ke",
        ),
        ("  minimum: 12", "  minimum: 99", r"`held_out\.minimum`: expected at most"),
        ("traffic:", "traffic: [", r"not valid YAML"),
    ],
)
def test_mistakes_in_the_settings_are_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SETTINGS
    path = tmp_path / "internalize.yaml"
    path.write_text(SETTINGS.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as raised:
        read_settings(path)
    assert str(path) in str(raised.value)


def test_a_run_has_the_profiles_task_and_rows(tmp_path: Path) -> None:
    params = YAML(typ="safe").load(run_params(TEXT, None, [], folder=ROOT / "profiles"))
    assert list(params["tasks"]) == ["custom"]
    assert list(params["methods"]) == ["full_prompt", "no_prompt", "seqkd", "gcd"]
    before = YAML(typ="safe").load(TEXT)
    assert params["train"] == before["train"]
    assert params["prepare_model"] == before["prepare_model"]


def test_rows_and_models_on_request() -> None:
    rows = ["seqkd_kld", "soft_prompt", "gcd"]
    text = run_params(TEXT, "owner/name@abc", rows, folder=ROOT / "profiles")
    params = YAML(typ="safe").load(text)
    assert list(params["methods"])[4:] == ["seqkd_kld", "soft_prompt"]
    assert params["prepare_model"]["source"] == "hub"
    assert params["prepare_model"]["hub"] == {"id": "owner/name", "revision": "abc"}
    folder = YAML(typ="safe").load(run_params(TEXT, "/a@b/model", [], folder=ROOT / "profiles"))
    assert folder["prepare_model"]["source"] == "path"
    assert folder["prepare_model"]["path"] == {"folder": "/a@b/model"}
    with pytest.raises(UserError, match=r"ROWS: no method 'gdc'; there are full_prompt, .*on_pol"):
        run_params(TEXT, None, ["gdc"], folder=ROOT / "profiles")


def test_held_out_inputs_come_from_another_stream_and_nothing_else_differs() -> None:
    text = run_params(TEXT, None, [], folder=ROOT / "profiles")
    settings = HeldOutSettings(count=7, minimum=3, seed=11)
    params, other = (YAML(typ="safe").load(one) for one in (text, held_out_params(text, settings)))
    assert other["seed"] == 11
    assert other["tasks"]["custom"]["synthesis"].pop("inputs") == 7
    assert other["make_pseudo_inputs"].pop("minimum") == 3
    other["seed"] = params["seed"]
    del params["tasks"]["custom"]["synthesis"]["inputs"], params["make_pseudo_inputs"]["minimum"]
    assert other == params


def test_a_warm_start_takes_the_place_of_gcd() -> None:
    text = run_params(TEXT, None, ["seqkd_kld"], "ab" * 32, folder=ROOT / "profiles")
    params = YAML(typ="safe").load(text)
    expected = ["full_prompt", "no_prompt", "seqkd", "seqkd_kld", "gcd_warm_start"]
    assert list(params["methods"]) == expected
    plain = YAML(typ="safe").load(run_params(TEXT, None, [], folder=ROOT / "profiles"))
    section = params["methods"]["gcd_warm_start"]
    assert section.pop("sha256") == "ab" * 32
    # Below no folder that git or DVC looks into.
    assert section.pop("adapter").startswith("data/raw/")
    assert section == plain["methods"]["gcd"]


def test_a_warm_start_needs_an_adapter_of_the_same_model(prompt: Path) -> None:
    from gcd.internalize.running import check_same_model, with_student

    with pytest.raises(UserError, match=r"WARM_START: .*there is no PREVIOUS"):
        check(prompt, LIMITS, warm_start=True)
    Path("exports/old").mkdir(parents=True)
    Path("exports/old/record.json").write_text("{}")
    with pytest.raises(UserError, match=r"exports/old has none"):
        check(prompt, LIMITS, previous="old", warm_start=True)
    Path("exports/old/adapter").mkdir()
    Path("exports/old/adapter/adapter_model.safetensors").write_bytes(b"x")
    assert check(prompt, LIMITS, previous="old", warm_start=True).warm_start
    model = {"source": "hub", "id": "a/b", "parameters": 5}
    check_same_model(model, dict(model))
    with pytest.raises(UserError, match=r"another base model \(hub, 5 parameters; now wheel, 7\)"):
        check_same_model(model, {"source": "wheel", "parameters": 7})
    settings = read_settings(ROOT / "internalize.yaml")
    assert with_student(settings, {"gcd": "x"}).verdict.student == "x"
    assert with_student(settings, {"seqkd": "x"}) == settings
