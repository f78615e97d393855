"""Records survive the disk; a bad line names its file and number; prompts are checked."""

import pytest

from gcd.core.errors import UserError
from gcd.core.interfaces import Reply
from gcd.core.journal import Journal
from gcd.core.prompt import format_prompt, parse_prompt, read_prompt_text
from gcd.core.records import Message, PseudoInput, read_records, write_records, write_text

RECORDS = [PseudoInput(index=0, text="one"), PseudoInput(index=1, text="zwei\u2028 ünd\n'\"")]


def test_round_trip(tmp_path):
    path = tmp_path / "folder" / "inputs.jsonl"
    write_records(path, RECORDS)
    assert read_records(path, PseudoInput) == RECORDS
    assert [file.name for file in path.parent.iterdir()] == ["inputs.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"index": 2, "text": "cut', "Invalid JSON"),
        ('{"index": 2}', "text: Field required"),
        ('{"index": "2", "text": "a"}', "index: Input should be a valid integer"),
        ('{"index": 2, "text": "a", "more": 1}', "more: Extra inputs"),
        ("", "Invalid JSON"),
    ],
)
def test_bad_line_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "inputs.jsonl"
    write_records(path, RECORDS)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=f"inputs.jsonl, line 3.*{message}") as raised:
        read_records(path, PseudoInput)
    assert "\n" not in str(raised.value)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:-9] + b"\0" * 8 + b"\n"]
)
def test_journal_survives_a_damaged_last_line(tmp_path, damage):
    path = tmp_path / "replies.jsonl"
    journal = Journal(path)
    replies = [Reply("a\nb", 3, 2, complete=True)]
    journal.put("first", replies)
    journal.put("second", replies)
    path.write_bytes(damage(path.read_bytes()))
    again = Journal(path)
    assert again.get("first") == replies
    assert again.get("second") is None
    again.put("second", replies)
    assert Journal(path).get("second") == replies


def test_prompt_turns():
    text = "Rules.\n<!-- user -->\nhi\n<!-- assistant -->\nyes\n\nno\n"
    assert [(m.role, m.content) for m in parse_prompt(text, "p")] == [
        ("system", "Rules."),
        ("user", "hi"),
        ("assistant", "yes\n\nno"),
    ]


@pytest.mark.parametrize("system", [[], [Message(role="system", content="Rules.\n\nMore.")]])
@pytest.mark.parametrize(
    "text", ["a", "\na\n\nb \t\n", "a &#10; b", "<!-- user --> inside", "\r\nß"]
)
def test_prompt_files_hold_messages_exactly(tmp_path, system, text):
    turns = [Message(role="user", content=text), Message(role="assistant", content=text)]
    messages = [*system, *turns, *turns]
    path = tmp_path / "prompt.md"
    write_text(path, format_prompt(messages, "p") + "\n")
    assert parse_prompt(read_prompt_text(path), "p") == messages


@pytest.mark.parametrize(
    "text", ["a\n<!-- assistant -->\nb", "<!-- user -->", "&#10;a", "a&#32;", "\u2028a", ""]
)
def test_what_a_prompt_file_cannot_hold_is_refused(text):
    messages = [Message(role="user", content=text), Message(role="assistant", content="b")]
    with pytest.raises(UserError, match=r"^p: "):
        format_prompt(messages, "p")


def test_plain_text_is_a_system_prompt():
    assert [m.role for m in parse_prompt("Just <!-- user --> rules.", "p")] == ["system"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- assistant -->\nb", "alternate"),
        ("a\n<!-- user -->\nb", "alternate"),
        ("a\n<!-- user -->\n\n<!-- assistant -->\nb", r"turn 1 \(user\) is empty"),
    ],
)
def test_bad_turns(text, message):
    with pytest.raises(UserError, match=message):
        parse_prompt(text, "p")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b" \n", "empty"), (b"a\0b", "binary"), (b"\xff\xfe\x01", "not UTF-8")],
)
def test_bad_prompt_files(tmp_path, data, message):
    path = tmp_path / "prompt.md"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"prompt.md: .*{message}"):
        read_prompt_text(path)


def test_missing_prompt_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_prompt_text(tmp_path / "none.md")
