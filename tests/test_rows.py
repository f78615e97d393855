"""The records of rows: read in their order, comparable or refused, failed or not."""

from pathlib import Path

import pytest

from gcd.core.errors import RowFailure, UserError
from gcd.core.failures import write_failure
from gcd.core.records import FULL_PROMPT, StateReply, write_records, write_text
from gcd.report.results import order_rows
from gcd.rows import FailedRow, Row, check_same_samples, failures, played, read_rows
from tests.test_scoring import make_episode, make_row


def test_rows_must_have_played_the_same_samples() -> None:
    teacher = make_row([make_episode(index, 1.0) for index in "abc"])
    check_same_samples("t", {FULL_PROMPT: teacher, "x": teacher})
    short = make_row(teacher.episodes[:2])
    with pytest.raises(UserError, match=r"row 'x'.*missing c \(1\)"):
        check_same_samples("t", {FULL_PROMPT: teacher, "x": short})
    extra = make_row([*teacher.episodes, make_episode("d", 1.0)])
    with pytest.raises(UserError, match=r"extra d \(1\)"):
        check_same_samples("t", {FULL_PROMPT: teacher, "x": extra})
    twice = make_row([*teacher.episodes, teacher.episodes[0]])
    with pytest.raises(UserError, match=r"repeated a \(1\)"):
        check_same_samples("t", {FULL_PROMPT: teacher, "x": twice})
    states = [StateReply(index=4, reply="r", action=None, teacher_action=None)]
    with pytest.raises(UserError, match=r"teacher states.*extra 4 \(1\)"):
        check_same_samples("t", {FULL_PROMPT: teacher, "x": make_row(teacher.episodes, states)})
    with pytest.raises(UserError, match="expected a row 'full_prompt'"):
        check_same_samples("t", {"x": teacher})


METHODS = [FULL_PROMPT, "zz"]


def write_row(folder: Path, row: Row) -> None:
    write_records(folder / "agent.json", [row.agent])
    write_records(folder / "episodes.jsonl", row.episodes)
    write_records(folder / "state_replies.jsonl", row.state_replies)
    write_records(folder / "prompt_recall.jsonl", row.recall)


def test_read_rows_reads_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        read_rows(tmp_path, METHODS)
    row = make_row([make_episode("1", 1.0)], method=FULL_PROMPT)
    method = tmp_path / "t" / FULL_PROMPT
    write_row(method / FULL_PROMPT, row)
    with pytest.raises(UserError, match=r"rows\.json: no such file"):
        read_rows(tmp_path, METHODS)
    write_text(method / "rows.json", '{"a": 1}')
    with pytest.raises(UserError, match=r"rows\.json: expected a JSON list"):
        read_rows(tmp_path, METHODS)
    write_text(method / "rows.json", f'["{FULL_PROMPT}"]')
    assert read_rows(tmp_path, METHODS) == {"t": {FULL_PROMPT: row}}
    agent = method / FULL_PROMPT / "agent.json"
    agent.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="expected one AgentRecord"):
        read_rows(tmp_path, METHODS)
    agent.unlink()
    with pytest.raises(UserError, match=r"agent.json: no such file"):
        read_rows(tmp_path, METHODS)
    write_row(method / FULL_PROMPT, row)
    write_text(tmp_path / "t/zz/rows.json", f'["{FULL_PROMPT}"]')
    with pytest.raises(UserError, match="expected one method to fill row"):
        read_rows(tmp_path, METHODS)


def test_rows_keep_the_order_of_methods_and_of_each_method(tmp_path: Path) -> None:
    filled = {
        "cut": ["cut_70", "cut_50", "cut_30"],  # neither up nor down the alphabet is an accident
        "icae": ["icae_8", "icae_32", "icae_128"],
        FULL_PROMPT: [FULL_PROMPT],
        "gone": ["gone"],
    }
    for method, names in filled.items():
        write_text(tmp_path / "t" / method / "rows.json", str(names).replace("'", '"'))
        for name in names:
            row = make_row([make_episode("1", 1.0)], method=method)
            write_row(tmp_path / "t" / method / name, row)
    write_failure(tmp_path / "t/cut/cut_50", "t, cut_50", RowFailure("out of memory"))
    methods = [FULL_PROMPT, "icae", "cut"]
    rows = read_rows(tmp_path, methods)["t"]
    assert "gone" not in rows  # what another profile left
    order = [FULL_PROMPT, *filled["icae"], *filled["cut"]]
    assert order_rows(rows, methods) == order
    with pytest.raises(UserError, match="expected 'full_prompt' under `methods`"):
        order_rows(rows, ["cut", "icae"])


def test_a_failed_row_is_neither_played_nor_compared(tmp_path: Path) -> None:
    row = make_row([make_episode("1", 1.0)], method=FULL_PROMPT)
    write_row(tmp_path / "t" / FULL_PROMPT / FULL_PROMPT, row)
    write_text(tmp_path / "t" / FULL_PROMPT / "rows.json", f'["{FULL_PROMPT}"]')
    write_text(tmp_path / "t/gcd/rows.json", '["gcd"]')
    half = tmp_path / "t/gcd/gcd"
    write_row(half, make_row([]))  # what it may have left before
    write_failure(half, "t, gcd", RowFailure("The loss is nan at step 3."))
    assert [path.name for path in half.iterdir()] == ["failed.json"]
    rows = read_rows(tmp_path, [FULL_PROMPT, "gcd"])["t"]
    assert rows == {FULL_PROMPT: row, "gcd": FailedRow("gcd", "The loss is nan at step 3.")}
    assert played(rows) == {FULL_PROMPT: row}
    assert failures(rows) == {"gcd": "The loss is nan at step 3."}
    write_text(half / "failed.json", '{"why": "x"}')
    with pytest.raises(UserError, match=r'failed\.json: expected {"reason": text}'):
        read_rows(tmp_path, [FULL_PROMPT, "gcd"])
    # Without the teacher there is nothing to measure the others by.
    write_failure(tmp_path / "t" / FULL_PROMPT / FULL_PROMPT, "t", RowFailure("out of memory"))
    write_text(half / "failed.json", '{"reason": "x"}')
    with pytest.raises(UserError, match="expected a row 'full_prompt'"):
        read_rows(tmp_path, [FULL_PROMPT, "gcd"])
