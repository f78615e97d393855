"""What training took: read from where the row was trained, and asked for where it must be."""

from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.records import FULL_PROMPT, TrainingRecord, write_records
from gcd.cost import cost_tasks, read_training
from tests.test_cost import SESSION, make_row
from tests.tiny import ARCHITECTURE as TINY

UNTRAINED = dict.fromkeys(TrainingRecord.model_fields, 0)


def test_rows_without_turns_have_no_costs_of_episodes(tmp_path: Path) -> None:
    rows = {FULL_PROMPT: make_row(5, SESSION), "x": make_row(0, [])}
    costs = cost_tasks(TINY, {"t": rows}, tmp_path, {"t": 70}, "float32")["t"]
    assert costs["x"] == {
        "data_flops": 0,
        "training": UNTRAINED,
        "bytes_to_ship": 7,
        "prompt_tokens": 0,
    }
    assert costs[FULL_PROMPT].keys() > costs["x"].keys()
    assert costs[FULL_PROMPT]["prompt_tokens"] == 5


def test_training_is_read_from_where_the_row_was_trained(tmp_path: Path) -> None:
    record = TrainingRecord(
        optimizer_steps=3,
        read_tokens=90,
        supervised_tokens=40,
        trainable_parameters=1000,
        flops=7_000,
    )
    trained = make_row(0, SESSION, "merged adapter", 1000)
    with pytest.raises(UserError, match=r"t/m: expected training\.json, because row 'a'"):
        read_training(tmp_path, "t", "a", trained)
    assert read_training(tmp_path, "t", "a", make_row(0, SESSION)).model_dump() == UNTRAINED
    write_records(tmp_path / "t/m/training.json", [record])
    assert read_training(tmp_path, "t", "a", trained) == record  # a method that trains once
    variant = record.model_copy(update={"optimizer_steps": 4})
    write_records(tmp_path / "t/m/b/training.json", [variant])
    assert read_training(tmp_path, "t", "b", trained) == variant
    assert read_training(tmp_path, "t", "b_with_prompt", trained) == variant
    assert read_training(tmp_path, "t", "a", trained) == record
    (tmp_path / "t/m/b/training.json").write_text('{"optimizer_steps": 4}', encoding="utf-8")
    with pytest.raises(UserError, match=r"b/training\.json: expected one TrainingRecord.*tokens"):
        read_training(tmp_path, "t", "b", trained)
