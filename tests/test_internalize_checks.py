"""What `make internalize` refuses, before anything runs and once there is a tokenizer."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
from gcd.internalize.settings import PromptSettings
from tests.conftest import ROOT

LIMITS = PromptSettings(max_bytes=2000, context_room=100)
TEXT = (ROOT / "params.yaml").read_text()
SETTINGS = (ROOT / "internalize.yaml").read_text()


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
