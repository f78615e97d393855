"""What was recorded about a task, gathered for the report."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gcd.core.errors import UserError
from gcd.rows import FULL_PROMPT, Row
from gcd.tables import Costs, Scores

LOSS_COLUMNS = {"step", "epoch", "loss", "learning_rate", "tokens"}  # the others are loss terms


@dataclass(frozen=True)
class TaskResults:
    """All that was recorded about one task. `rows` is the order in which rows are shown."""

    task: str
    rows: list[str]
    records: dict[str, Row]
    scores: Scores
    costs: Costs
    losses: dict[str, pd.DataFrame]  # {trained method: loss.csv}


def order_rows(records: dict[str, Row], methods: list[str]) -> list[str]:
    """Rows in the order of `methods`; rows of methods that are not listed are left out.

    Raises UserError if full_prompt is among those.
    """
    rows = [row for method in methods for row, found in records.items() if found.method == method]
    if FULL_PROMPT not in rows:
        raise UserError(
            f"params.yaml: expected {FULL_PROMPT!r} under `methods`, which the other rows are "
            f"measured by; got {methods}. Put it back."
        )
    return rows


def read_losses(folder: Path, methods: list[str]) -> dict[str, pd.DataFrame]:
    """{method: loss.csv} from `folder`/METHOD/loss.csv, for the methods that were trained."""
    paths = {method: folder / method / "loss.csv" for method in methods}
    losses = {method: pd.read_csv(path) for method, path in paths.items() if path.exists()}
    for method, frame in losses.items():
        missing = sorted(LOSS_COLUMNS - set(frame.columns))
        if missing or frame.empty:
            raise UserError(
                f"{paths[method]}: expected at least one step with the columns "
                f"{sorted(LOSS_COLUMNS)}; missing: {missing or 'all steps'}. Run `dvc repro`."
            )
    return losses


def loss_terms(frame: pd.DataFrame) -> list[str]:
    """The columns to draw: the terms, and their weighted sum where there is more than one."""
    terms = [str(column) for column in frame.columns if column not in LOSS_COLUMNS]
    return terms if len(terms) == 1 else [*terms, "loss"]
