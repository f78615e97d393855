"""What was recorded about a task, gathered for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gcd.comparisons import Compared
from gcd.core.errors import UserError
from gcd.core.records import FULL_PROMPT, read_json
from gcd.report.cost_tables import Costs
from gcd.report.tables import Scores
from gcd.rows import FailedRow, Row

LOSS_COLUMNS = {"step", "epoch", "loss", "learning_rate", "tokens"}  # the others are loss terms


@dataclass(frozen=True)
class TaskResults:
    """All that was recorded about one task. `rows` is the order in which rows are shown.

    Some of them may have failed: they are in `failures`, and in nothing else.
    """

    task: str
    rows: list[str]
    records: dict[str, Row]
    failures: dict[str, str]  # {row: reason}
    scores: Scores
    compared: Compared
    costs: Costs
    losses: dict[str, pd.DataFrame]  # {trained row: loss.csv}

    @property
    def played(self) -> list[str]:
        """The rows that did not fail, in order."""
        return [row for row in self.rows if row not in self.failures]


def order_rows(records: Mapping[str, Row | FailedRow], methods: list[str]) -> list[str]:
    """Rows in the order of `methods`, those of one method in the order of `records`.

    Rows of methods that are not listed are left out; raises UserError if full_prompt is among them.
    """
    rows = [row for method in methods for row, found in records.items() if found.method == method]
    if FULL_PROMPT not in rows:
        raise UserError(
            f"params.yaml: expected {FULL_PROMPT!r} under `methods`, which the other rows are "
            f"measured by; got {methods}. Put it back."
        )
    return rows


def read_recorded(path: Path, command: str) -> Any:
    """The JSON value in `path`, which `command` writes; raises UserError if it is not there."""
    if not path.exists():
        raise UserError(
            f"{path}: no such file. `{command}` records it; `git checkout {path}` brings the "
            "committed one back."
        )
    return read_json(path)


def read_losses(folder: Path, rows: dict[str, str]) -> dict[str, pd.DataFrame]:
    """The loss.csv of every row that was trained, in the order of `rows`.

    Args:
        folder: of the task, with METHOD/ROW/loss.csv, or METHOD/loss.csv where the method trains
            once: that one is named by the method. Beside it, examples.json names the losses: other
            columns than these are dropped.
        rows: {row: method}.
    """
    paths: dict[str, Path] = {}
    for row, method in rows.items():
        for name, path in ((row, folder / method / row), (method, folder / method)):
            if (path / "loss.csv").exists():
                paths[name] = path / "loss.csv"
                break
    losses = {name: pd.read_csv(path) for name, path in paths.items()}
    for name, frame in losses.items():
        missing = sorted(LOSS_COLUMNS - set(frame.columns))
        if missing or frame.empty:
            raise UserError(
                f"{paths[name]}: expected at least one step with the columns "
                f"{sorted(LOSS_COLUMNS)}; missing: {missing or 'all steps'}. Run `dvc repro`."
            )
        named = {
            loss
            for term in read_json(paths[name].with_name("examples.json")).values()
            for loss in term["weights"]
        }
        losses[name] = frame[[one for one in frame.columns if one in LOSS_COLUMNS | named]]
    return losses


def loss_terms(frame: pd.DataFrame) -> list[str]:
    """The columns to draw: the terms, and their weighted sum where there is more than one."""
    terms = [str(column) for column in frame.columns if column not in LOSS_COLUMNS]
    return terms if len(terms) == 1 else [*terms, "loss"]
