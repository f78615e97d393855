"""From saved experiments to the lines of `records`."""

from typing import Any

import pandas as pd

from gcd.experiments.points import DEFAULT, Point
from gcd.experiments.records import ABLATION_COLUMNS, SEED_COLUMNS, TRAINING
from gcd.report.tables import FAILED

Saved = dict[str, Any]  # {"scores": …, "costs": …}, of one experiment


def changes_text(changes: dict[str, Any]) -> str:
    """{"a.b": 1, "c": None} -> "a.b=1 c=null", as `dvc exp run -S` takes them."""
    return " ".join(f"{key}={'null' if value is None else value}" for key, value in changes.items())


def _estimates(saved: Saved, task: str, row: str) -> list[dict[str, Any]]:
    """The row's metrics, a line each."""
    metrics = saved["scores"].get(task, {}).get(row)
    if metrics is None:
        return [{"metric": FAILED}]
    return [{"metric": metric, **estimate} for metric, estimate in metrics.items()]


def ablation_frame(
    points: list[Point], saved: dict[str, Saved], task: str, row: str
) -> pd.DataFrame:
    """The record of an ablation.

    Args:
        points: in the order in which they are shown.
        saved: by the name of the point's experiment.
        task, row: whose metrics and training are written down.
    """
    lines = []
    for point in points:
        one = saved[point.name]
        training = one["costs"].get(task, {}).get(row, {}).get("training", {})
        lines += [
            {
                "task": task,
                "row": row,
                "point": str(point.label),
                "default": point.name == DEFAULT,
                "changes": changes_text(point.changes),
                **estimate,
                **{name: training.get(name) for name in TRAINING},
            }
            for estimate in _estimates(one, task, row)
        ]
    return pd.DataFrame(lines, columns=ABLATION_COLUMNS)


def seeds_frame(
    points: list[Point], saved: dict[str, Saved], task: str, rows: list[str]
) -> pd.DataFrame:
    """The record of a task's seeds; arguments as in `ablation_frame`."""
    lines = [
        {"task": task, "seed": point.label, "row": row, **estimate}
        for point in points
        for row in rows
        for estimate in _estimates(saved[point.name], task, row)
    ]
    return pd.DataFrame(lines, columns=SEED_COLUMNS)
