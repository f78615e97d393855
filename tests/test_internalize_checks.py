"""What `make internalize` refuses, before anything runs and once there is a tokenizer."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.prompt import parse_prompt
from gcd.internalize.checks import (
    Asked,
    check,
    check_against_model,
    check_model,
    check_name,
    check_previous,
    control_tokens,
    default_name,
    read_prompt_file,
)
from gcd.internalize.formats import Format, read_format
from gcd.internalize.run_params import held_out_params, run_params
from gcd.internalize.settings import HeldOutSettings, PromptSettings, read_settings
from tests.conftest import ROOT

LIMITS = PromptSettings(max_bytes=2000, context_room=100)
TEXT = (ROOT / "params.yaml").read_text()
SETTINGS = (ROOT / "internalize.yaml").read_text()


@pytest.fixture
def prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good prompt in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shop.md"
    path.write_text("You sell fern.\n")
    return path


def asked(text: str, inputs: list[str] | None = None) -> Asked:
    return Asked(
        "shop", Path("shop.md"), text, inputs or [], None, None, [], None, False, False, []
    )


# --- The prompt -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"shop\.md: empty"),
        (b" \n\t\n", r"shop\.md: empty"),
        (b"\xef\xbb\xbf\r\n", r"shop\.md: empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"shop\.md: not UTF-8 text \(byte 0\)"),
        (b"plain\0binary", r"shop\.md: a binary file"),
        ("Grüße".encode("latin-1"), r"shop\.md: not UTF-8 text \(byte 2\)"),
        ("text".encode("utf-16"), r"shop\.md: not UTF-8 text"),
        (b"x" * 2001, r"shop\.md: 2,001 bytes; a prompt has at most 2,000 .*prompt\.max_bytes"),
        (b"a\n<!-- user -->\nb\n", r"must alternate .* end with an assistant's"),
        (b"a\n<!-- assistant -->\nb\n", r"must alternate"),
        (b"a\n<!-- user -->\n<!-- assistant -->\nb\n", r"turn 1 \(user\) is empty"),
        (b"a\n<!--user-->\nb\n", r"line 2: a turn is marked by a line that is exactly"),
        (b"a\n <!-- user -->\nb", r"line 2: a turn is marked"),
        (b"a\n<!-- Assistant -->\nb", r"line 2: a turn is marked"),
        (b"<!-- system -->\na", r"line 1: .*The system text has no mark"),
    ],
)
def test_bad_prompts(prompt: Path, content: bytes, message: str) -> None:
    prompt.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        check(prompt, LIMITS)
    assert "\n" not in str(raised.value)


def test_a_missing_prompt_and_a_folder(prompt: Path) -> None:
    with pytest.raises(UserError, match=r"none\.md: cannot be read \(No such file"):
        check(prompt.with_name("none.md"), LIMITS)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        check(prompt.parent, LIMITS)


def test_windows_files_are_the_same_prompt(prompt: Path) -> None:
    plain = "You sell fern.\n<!-- user -->\nHow much?\n<!-- assistant -->\nOne.\n"
    prompt.write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())
    assert read_prompt_file(prompt, LIMITS) == plain.strip()
    assert [turn.role for turn in parse_prompt(read_prompt_file(prompt, LIMITS), "")] == [
        "system",
        "user",
        "assistant",
    ]


def test_a_prompt_may_be_as_large_as_the_limit(prompt: Path) -> None:
    prompt.write_bytes(b"x" * 2000)
    assert len(check(prompt, LIMITS).prompt) == 2000


# --- Everything else on the command line ----------------------------------------------------------


def test_names_come_from_the_prompt() -> None:
    assert default_name(Path("examples/support/prompt.md")) == "support"
    assert default_name(Path("prompts/My SQL (v2).md")) == "my-sql-v2"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "Ä", "A", "a" * 42])
def test_bad_names(prompt: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"NAME: expected up to 41 of a-z"):
        check_name(name)


def test_an_export_is_never_overwritten(prompt: Path) -> None:
    check(prompt, LIMITS)
    Path("exports/shop").mkdir(parents=True)
    with pytest.raises(UserError, match=r"exports/shop: exists, and nothing is overwritten"):
        check(prompt, LIMITS)
    assert check(prompt, LIMITS, name="shop-2").name == "shop-2"


def test_an_export_that_comes_into_being_meanwhile_stays(prompt: Path) -> None:
    from gcd.internalize.exporting import move_into_place

    new = Path(".work/new")
    new.mkdir(parents=True)
    (new / "report.md").write_text("new")
    Path("exports/shop").mkdir(parents=True)
    with pytest.raises(UserError, match="nothing is overwritten"):
        move_into_place(new, "shop")
    assert list(Path("exports/shop").iterdir()) == []
    assert move_into_place(new, "shop-2") == Path("exports/shop-2")
    assert Path("exports/shop-2/report.md").read_text() == "new"


@pytest.mark.parametrize("model", ["nowhere", "owner/name", "https://example.org/model", ""])
def test_a_model_is_a_folder_or_a_pinned_repository(prompt: Path, model: str) -> None:
    with pytest.raises(UserError, match=r"MODEL: expected a folder .* or owner/name@revision"):
        check_model(model)


def test_models_as_params_take_them(prompt: Path) -> None:
    assert check_model(None) is None
    assert check_model("owner/name-1.5@main") == "owner/name-1.5@main"
    Path("mine").mkdir()
    with pytest.raises(UserError, match="MODEL"):
        check_model("mine")
    Path("mine/config.json").write_text("{}")
    # A worktree is another folder.
    assert check_model("mine") == str(prompt.parent / "mine")


def test_previous_is_another_export(prompt: Path) -> None:
    Path("exports/old").mkdir(parents=True)
    with pytest.raises(UserError, match=r"PREVIOUS: .* got 'old'\. There are: none"):
        check_previous("old", "shop")
    Path("exports/old/record.json").write_text("{}")
    assert check_previous("old", "shop") == Path("exports/old")
    with pytest.raises(UserError, match=r"There are: old"):
        check_previous("old", "old")


def test_bad_inputs_are_named_by_file_and_line(prompt: Path) -> None:
    Path("inputs.jsonl").write_text('{"input": "fine"}\nWhere is my order?\n')
    with pytest.raises(UserError, match=r'inputs\.jsonl, line 2: .* {"input": "…"}'):
        check(prompt, LIMITS, inputs=Path("inputs.jsonl"))


def test_the_command_ends_in_one_line_without_torch(tmp_path: Path) -> None:
    """Within a second or so: what is wrong is said before the imports that take ten."""
    code = (
        "import sys; sys.argv = ['x', 'none.md']\n"
        "from gcd.internalize.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said, torch = done.stdout.splitlines()
    assert said.startswith("internalize: none.md: cannot be read")
    assert torch == "False"


# --- Against the model ----------------------------------------------------------------------------


def test_a_prompt_that_fits_and_how_many_tokens_it_is(tokenizer: Any) -> None:
    text = "fern grape\n<!-- user -->\nbirch\n<!-- assistant -->\ncedar"
    count = len(prompt_ids(tokenizer, parse_prompt(text, "")))
    assert check_against_model(asked(text), tokenizer, count + 100, LIMITS) == count
    with pytest.raises(UserError, match=rf"shop\.md: {count} tokens, and 100 more are needed"):
        check_against_model(asked(text), tokenizer, count + 99, LIMITS)


def test_control_tokens_are_refused_wherever_they_stand(tokenizer: Any) -> None:
    tokens = control_tokens(tokenizer)
    assert "<|im_end|>" in tokens
    for token in tokens:
        with pytest.raises(UserError, match=r"shop\.md, line 2: holds .*a control token"):
            check_against_model(asked(f"fern\nx{token}y"), tokenizer, 9999, LIMITS)
        with pytest.raises(UserError, match=r"INPUTS, input 2, line 1: holds"):
            check_against_model(asked("fern", ["a", token]), tokenizer, 9999, LIMITS)
    check_against_model(asked("fern <|im_en"), tokenizer, 9999, LIMITS)


class Untemplated:
    chat_template = None


def test_a_model_without_a_chat_template() -> None:
    with pytest.raises(UserError, match=r"no chat template\. Choose an instruction-tuned model"):
        check_against_model(asked("fern"), Untemplated(), 9999, LIMITS)


def test_a_template_without_a_system_turn(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(UserError, match=r"refuses the prompt's roles: System role not supported"):
        check_against_model(asked("fern"), tokenizer, 9999, LIMITS)


# --- Formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reply", "holds"),
    [
        ("Yes|No", " Yes\n", True),
        ("Yes|No", "Yes, of course", False),  # the whole reply
        ("(?s)Answer:.*", "Answer:\nx", True),
        ("(a+)+b", "a" * 60, False),  # backtracks for ever
    ],
)
def test_patterns(text: str, reply: str, holds: bool) -> None:
    assert Format("regular expression", text).holds(reply) is holds


@pytest.mark.parametrize(
    ("reply", "holds"),
    [
        ('{"topic": "order", "action": "answer", "reply": "It is on its way."}', True),
        (' {"reply": "x", "topic": "order",\n"action": "ask"} ', True),
        ('{"topic": "order", "action": "answer"}', False),
        ('{"topic": "orders", "action": "answer", "reply": "x"}', False),
        ('{"topic": "order", "action": "answer", "reply": ""}', False),
        ('{"topic": "order", "action": "answer", "reply": "x", "more": 1}', False),
        ('{"topic": "order", "action": "answer", "reply": "x"', False),
        ('{"topic": "order", "action": "answer", "reply": "x"} Bye.', False),
        ("NaN", False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_the_examples_schema(reply: str, holds: bool) -> None:
    assert read_format(ROOT / "examples/support/format.json").holds(reply) is holds


def test_the_examples_demonstrations_have_its_format() -> None:
    path = ROOT / "examples/support/prompt.md"
    format = read_format(path.with_name("format.json"))
    turns = parse_prompt(
        read_prompt_file(path, read_settings(ROOT / "internalize.yaml").prompt), ""
    )
    shown = [turn.content for turn in turns if turn.role == "assistant"]
    assert len(shown) >= 6
    assert all(map(format.holds, shown))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", r"empty"),
        ("a.json", b"{", r"expected a JSON Schema, and it is no JSON"),
        ("a.json", b'{"type": "texts"}', r"expected a JSON Schema: 'texts' is not valid"),
        ("a.json", b'{"$ref": "https://example.org/x"}', r"refers to another document, https"),
        ("a.txt", b"(a", r"expected a regular expression: missing \)"),
        ("a.txt", b"\xff", r"not UTF-8"),
    ],
)
def test_bad_formats(prompt: Path, name: str, content: bytes, message: str) -> None:
    path = prompt.parent / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        check(prompt, LIMITS, format=path)


# --- internalize.yaml and params.yaml -------------------------------------------------------------


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
