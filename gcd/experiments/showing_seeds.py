"""The section of the report on seeds: mean and spread beside the interval within one.

From reports/seeds/<task>.csv, which `make seeds` writes.
"""

from pathlib import Path

import pandas as pd

from gcd.experiments.drawing import DRAWN
from gcd.experiments.records import differs, metrics_of, spread
from gcd.report import tables
from gcd.report.results import TaskResults
from gcd.report.sentences import RECALL, listed, paragraph, source
from gcd.report.tables import FAILED, NOTHING, SUCCESS, percent
from gcd.report.transcripts import escape

SHOWN = {**DRAWN, RECALL: "prompt recall"}


def seeds_table(record: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean and spread over seeds beside the interval within one: a line a row and metric.

    Args:
        record: of a task.
        seed: the run at hand's.
    """
    lines = []
    for one in spread(record).to_dict("records"):
        if one["metric"] not in SHOWN:
            continue
        chosen = (record["row"] == one["row"]) & (record["seed"] == seed)
        metrics = metrics_of(record[chosen])
        lines.append(
            {
                "Row": one["row"],
                "Metric": SHOWN[str(one["metric"])],
                f"Seed {seed}, interval over samples (%)": tables.interval(
                    metrics.get(str(one["metric"])), 100
                ),
                "Mean over seeds (%)": percent(one["mean"]),
                "Standard deviation": percent(one["std"]) if one["count"] > 1 else NOTHING,
                "Range": f"{percent(one['min'])}-{percent(one['max'])}",
                "Seeds": str(int(one["count"])),
            }
        )
    return pd.DataFrame(lines)


def rows_of_another_run(record: pd.DataFrame, here: TaskResults, seed: int) -> list[str]:
    """The rows that came out differently in the run at hand, whose seed is `seed`."""
    own = record[record["seed"] == seed]
    recorded = {row: metrics_of(own[own["row"] == row]) for row in dict.fromkeys(record["row"])}
    return [row for row, found in recorded.items() if differs(found, here.scores.get(row))]


def over_seeds(record: pd.DataFrame, here: TaskResults, seed: int, row: str) -> str:
    """What other seeds make of a row's success, for the summary; empty where it is not recorded."""
    found = spread(record)
    found = found[(found["row"] == row) & (found["metric"] == SUCCESS) & (found["count"] > 1)]
    if found.empty or rows_of_another_run(record, here, seed):
        return ""
    one = found.iloc[0]
    return paragraph(
        f"**What a seed changes.** Over {int(one['count'])} seeds, of data and training, "
        f"{escape(row)} has a mean success of {percent(one['mean'])} % in {escape(here.task)}, "
        f"with a standard deviation of {percent(one['std'])} points (from {percent(one['min'])} "
        f"to {percent(one['max'])} %); all other numbers up here are of seed {seed}."
    )


def render_seeds(record: pd.DataFrame, here: TaskResults, seed: int, folder: Path) -> str:
    """The section of one task's seeds; writes its table below `folder`."""
    title = f"## Seeds: {escape(here.task)}"
    other = rows_of_another_run(record, here, seed)
    if other:
        return "\n\n".join(
            [
                title,
                paragraph(
                    f"reports/seeds/{escape(here.task)}.csv is of another run, in which "
                    f"{listed([escape(row) for row in other])} came out differently with seed "
                    f"{seed}: other settings, other code or another machine. It is not shown. "
                    "`make seeds` records it anew."
                ),
            ]
        )
    table = seeds_table(record, seed)
    tables.write_markdown(table, folder / "tables" / f"seeds_{here.task}.md")
    failed = record[record["metric"] == FAILED].groupby("row", sort=False)["seed"].count()
    return "\n\n".join(
        [
            title,
            paragraph(
                f"Data synthesised and rows trained once for each of {record['seed'].nunique()} "
                "seeds by `make seeds`, and played on the same test samples. The interval says how "
                "much other samples could change a number, the standard deviation (of a sample) "
                "how much another seed does, and neither covers the other."
            ),
            tables.markdown(table),
            source("`make seeds`", f"seeds/{here.task}.csv"),
            *(paragraph(f"{escape(str(row))} failed with {n} seeds.") for row, n in failed.items()),
        ]
    )
