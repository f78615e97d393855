"""The committed record: every row of params.yaml, and what would betray a wrong implementation."""

import json
from pathlib import Path

from gcd.core.interfaces import load_method
from gcd.core.params import check_sections, load_file

ROOT = Path(__file__).resolve().parents[1]
SCORES = json.loads((ROOT / "reports/scores.json").read_text())


def test_every_row_of_every_task_is_there() -> None:
    file = load_file(ROOT / "params.yaml")
    rows = {
        row
        for method in file["methods"]
        for row in load_method(method).rows(check_sections(file, f"methods.{method}").method)
    }
    assert {task: set(found) for task, found in SCORES.items()} == dict.fromkeys(
        file["tasks"], rows
    )


def test_training_behind_the_prompt_keeps_what_the_prompt_does() -> None:
    """Behind it, both are at most five points of valid actions below the base model behind it."""
    for found in SCORES.values():
        teacher = found["full_prompt"]["valid_action_rate"]["value"]
        for share in (100, 50):
            row = found[f"prompt_prepending_{share}_with_prompt"]
            assert row["valid_action_rate"]["value"] >= teacher - 0.05
