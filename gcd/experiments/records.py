"""reports/ablations/<name>.csv and reports/seeds/<task>.csv: written, read, summarised.

One line a point (or seed), row and metric, as in reports/tables/<task>_results.csv; a row that
could not be trained or played has one line with the metric `failed` and no numbers.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from gcd.core.errors import UserError
from gcd.report.tables import FAILED, write_csv

REPORTS = Path("reports")
ESTIMATE = ["value", "low", "high", "n"]
TRAINING = ["optimizer_steps", "supervised_tokens", "flops"]
ABLATION_COLUMNS = ["task", "row", "point", "default", "changes", "metric", *ESTIMATE, *TRAINING]
SEED_COLUMNS = ["task", "seed", "row", "metric", *ESTIMATE]


def ablation_file(name: str) -> Path:
    """The record of an ablation."""
    return REPORTS / "ablations" / f"{name}.csv"


def seeds_file(task: str) -> Path:
    """The record of a task's seeds."""
    return REPORTS / "seeds" / f"{task}.csv"


def write_record(frame: pd.DataFrame, path: Path) -> None:
    """Write a record whole or not at all; counts stay whole numbers beside missing ones."""
    counts = ["n", *(name for name in TRAINING if name in frame)]
    temporary = path.with_name(path.name + ".tmp")
    write_csv(frame.astype(dict.fromkeys(counts, "Int64")), temporary)
    temporary.replace(path)


def read_record(path: Path, columns: list[str]) -> pd.DataFrame | None:
    """A record; None if there is none. Raises UserError if it has other columns or no lines."""
    if not path.exists():
        return None
    frame = pd.read_csv(
        path,
        dtype={"point": str, "changes": str},
        keep_default_na=False,
        na_values=[""],
    )
    if list(frame.columns) != columns or frame.empty:
        raise UserError(
            f"{path}: expected lines with the columns {', '.join(columns)}; got "
            f"{', '.join(map(str, frame.columns))} and {len(frame)} lines. Take the committed file "
            "back with git, or delete it."
        )
    return frame


def spread(frame: pd.DataFrame) -> pd.DataFrame:
    """Over seeds, by row and metric: count, mean, std (of a sample: n - 1), min and max of values.

    Args:
        frame: a record of seeds. Those in which the row failed count for nothing.
    """
    kept = frame[frame["metric"] != FAILED]
    grouped = kept.groupby(["row", "metric"], sort=False)["value"]
    return grouped.agg(["count", "mean", "std", "min", "max"]).reset_index()


def metrics_of(lines: pd.DataFrame) -> dict[str, dict[str, float]]:
    """{metric: estimate} of one row, as in scores.json; empty if it failed."""
    kept = lines[lines["metric"] != FAILED]
    return {
        str(line["metric"]): {key: line[key] for key in ("value", "low", "high", "n")}
        for line in kept.to_dict("records")
    }


def differs(recorded: dict[str, dict[str, float]], here: dict[str, Any] | None) -> bool:
    """Whether a row's recorded metrics are not those of the run at hand; None: the row failed."""
    if here is None:
        return bool(recorded)
    return not recorded or any(here.get(metric) != one for metric, one in recorded.items())
