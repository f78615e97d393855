"""Ablations and seeds in the report: from their committed records, which other commands write.

A record is shown where its default point came out as the same row of the run at hand. One of other
settings, other code or another machine is named and not shown, so that no two runs are mixed.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from gcd.experiments.definitions import FOLDER, Ablation, Ablations, read_definition
from gcd.experiments.drawing import draw_points
from gcd.experiments.records import (
    ABLATION_COLUMNS,
    SEED_COLUMNS,
    ablation_file,
    read_record,
    seeds_file,
    spread,
)
from gcd.report import figures, tables
from gcd.report.results import TaskResults
from gcd.report.sentences import RECALL, listed, paragraph, source
from gcd.report.tables import FAILED, NOTHING, SUCCESS, VALID, percent
from gcd.report.transcripts import escape

AGREEMENT = "teacher_agreement"
DRAWN = {SUCCESS: "success", VALID: "valid actions", AGREEMENT: "teacher agreement"}
SHOWN = {**DRAWN, RECALL: "prompt recall"}


def _metrics(lines: pd.DataFrame) -> dict[str, dict[str, float]]:
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


def _here(results: list[TaskResults], task: str, row: str) -> dict[str, Any] | None:
    """The row's metrics in the run at hand."""
    return next((found.scores.get(row) for found in results if found.task == task), None)


def points_table(record: pd.DataFrame) -> pd.DataFrame:
    """An ablation as it is printed: a line a point."""
    lines = []
    for point, found in record.groupby("point", sort=False):
        metrics = _metrics(found)
        first = found.iloc[0]
        line = {"Point": f"{point} (default)" if first["default"] else str(point)}
        for metric, title in DRAWN.items():
            shown = tables.interval(metrics.get(metric), 100) if metrics else FAILED
            line[f"{title.capitalize()} (%)"] = shown
        recall = metrics.get(RECALL)
        line["Prompt recall (%)"] = percent(recall["value"]) if recall else NOTHING
        trained = pd.notna(first["optimizer_steps"])
        line["Steps"] = f"{int(first['optimizer_steps'])}" if trained else NOTHING
        line["Supervised tokens"] = f"{int(first['supervised_tokens']):,}" if trained else NOTHING
        line["Training GFLOP"] = f"{first['flops'] / 1e9:,.0f}" if trained else NOTHING
        lines.append(line)
    return pd.DataFrame(lines)


def summarise_points(record: pd.DataFrame) -> str:
    """Which points had the most and the least success, and whether this test set tells them apart.

    Nothing where fewer than two points were played.
    """
    found = record[record["metric"] == SUCCESS]
    if len(found) < 2:
        return ""
    ordered = found.sort_values("value", kind="stable")
    best, worst = ordered.iloc[-1], ordered.iloc[0]
    if best["value"] == worst["value"]:
        return paragraph(f"Success is {percent(best['value'])} % at every point.")
    apart = worst["high"] < best["low"]
    high, low = (
        f"{escape(str(one['point']))} ({percent(one['value'])} %)" for one in (best, worst)
    )
    return paragraph(
        f"Success is highest at {high} and lowest at {low}, on {int(best['n'])} samples.",
        f"The intervals of these two, the extremes of {len(found)} points, do not overlap."
        if apart
        else "Their intervals overlap: this ablation does not show that the points differ.",
    )


def render_ablation(name: str, asked: Ablation, record: pd.DataFrame, folder: Path) -> str:
    """One ablation's section; writes its figure and its table below `folder`."""
    table = points_table(record)
    tables.write_markdown(table, folder / "tables" / f"ablation_{name}.md")
    figure = draw_points(record, asked.axis, DRAWN)
    figures.save(figure, folder / "figures" / f"ablation_{name}")
    rates = ", ".join(
        f"{line['point']} {percent(line['value'])} %"
        for line in record[record["metric"] == SUCCESS].to_dict("records")
    )
    text = f"Ablation {name}: shares with intervals against {asked.axis}. Success: {rates}."
    return "\n\n".join(
        part
        for part in [
            f"### Ablation: {escape(name)}",
            paragraph(f"{escape(asked.question)} What differs: {escape(asked.axis)}."),
            tables.markdown(table),
            source("`make ablations`", f"ablations/{name}.csv"),
            summarise_points(record),
            f"![{escape(text)}](figures/ablation_{name}.svg)",
        ]
        if part
    )


def render_ablations(
    defined: Ablations, records: dict[str, pd.DataFrame], results: list[TaskResults], folder: Path
) -> str:
    """The section of all ablations.

    Args:
        defined: experiments/ablations.yaml.
        records: {ablation: its record}, of those that have one.
        results: of the run at hand.
        folder: reports/.
    """
    other = []
    for name, record in records.items():
        lines = record[record["default"]]
        task, row = str(record["task"].iloc[0]), str(record["row"].iloc[0])
        if differs(_metrics(lines), _here(results, task, row)):
            other.append(name)
    missing = [name for name in defined.ablations if name not in records]
    parts = ["## Ablations"]
    if len(other) < len(records):
        parts.append(
            paragraph(
                f"The row {escape(defined.method)} of {escape(defined.task)} with one thing "
                "changed at a time, and what must change with it: trained and played once each by "
                "`make ablations`, on the same test samples, with one seed. Recorded in "
                "reports/ablations; the point (default) is the row above, and came out the same "
                "there."
            )
        )
    for names, what, then in (
        (
            other,
            "recorded by another run, whose default point came out differently from the row above: "
            "other settings, other code or another machine",
            "Not shown. `make ablations` records them anew.",
        ),
        (missing, "not recorded yet", "`make ablations` runs them."),
    ):
        if names:
            subject = (
                f"{listed([escape(name) for name in names])} {'is' if len(names) == 1 else 'are'}"
            )
            parts.append(paragraph(f"{subject} {what}. {then}"))
    parts += [
        render_ablation(name, defined.ablations[name], record, folder)
        for name, record in records.items()
        if name not in other
    ]
    return "\n\n".join(parts)


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
        metrics = _metrics(record[chosen])
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


def render_seeds(record: pd.DataFrame, here: TaskResults, seed: int, folder: Path) -> str:
    """The section of one task's seeds; writes its table below `folder`."""
    title = f"## Seeds: {escape(here.task)}"
    rows = list(dict.fromkeys(record["row"]))
    own = record[record["seed"] == seed]
    other = [row for row in rows if differs(_metrics(own[own["row"] == row]), here.scores.get(row))]
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


def render(results: list[TaskResults], seed: int, folder: Path) -> str:
    """The report's sections on ablations and on seeds; writes tables and figures below `folder`.

    Args:
        results: of the run at hand.
        seed: params.yaml's.
        folder: reports/.

    Raises:
        UserError: a definition or a record is not as it should be.
    """
    defined = read_definition(FOLDER / "ablations.yaml", Ablations)
    found = {name: read_record(ablation_file(name), ABLATION_COLUMNS) for name in defined.ablations}
    records = {name: record for name, record in found.items() if record is not None}
    parts = [render_ablations(defined, records, results, folder)]
    seeded = {here.task: read_record(seeds_file(here.task), SEED_COLUMNS) for here in results}
    for here in results:
        record = seeded[here.task]
        if record is not None:
            parts.append(render_seeds(record, here, seed, folder))
    if all(record is None for record in seeded.values()):
        parts += ["## Seeds", "Not recorded yet. `make seeds` runs them."]
    return "\n\n".join(parts)
