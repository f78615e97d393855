"""Ablations in the report, and the seeds behind them: from committed records, which other commands
write.

A record is shown where its default point came out as the same row of the run at hand. One of other
settings, other code or another machine is named and not shown, so that no two runs are mixed.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gcd.experiments.definitions import FOLDER, Ablation, Ablations, read_definition
from gcd.experiments.drawing import DRAWN, draw_points
from gcd.experiments.records import (
    ABLATION_COLUMNS,
    SEED_COLUMNS,
    ablation_file,
    differs,
    metrics_of,
    read_record,
    seeds_file,
)
from gcd.experiments.showing_seeds import over_seeds, render_seeds
from gcd.report import figures, tables
from gcd.report.results import TaskResults
from gcd.report.sentences import RECALL, listed, paragraph, source
from gcd.report.tables import FAILED, NOTHING, SUCCESS, percent
from gcd.report.transcripts import escape


def of_another_run(record: pd.DataFrame, results: list[TaskResults]) -> bool:
    """Whether an ablation's default point came out differently from that row of the run at hand."""
    task, row = str(record["task"].iloc[0]), str(record["row"].iloc[0])
    here = next((found.scores.get(row) for found in results if found.task == task), None)
    return differs(metrics_of(record[record["default"]]), here)


def read_ablations() -> tuple[Ablations, dict[str, pd.DataFrame]]:
    """The definitions, and the records of those that have one.

    Raises:
        UserError: a definition or a record is not as it should be.
    """
    defined = read_definition(FOLDER / "ablations.yaml", Ablations)
    found = {name: read_record(ablation_file(name), ABLATION_COLUMNS) for name in defined.ablations}
    return defined, {name: record for name, record in found.items() if record is not None}


def points_table(record: pd.DataFrame) -> pd.DataFrame:
    """An ablation as it is printed: a line a point."""
    lines = []
    for point, found in record.groupby("point", sort=False):
        metrics = metrics_of(found)
        first = found.iloc[0]
        line = {"Point": f"{point} (default)" if first["default"] else str(point)}
        for metric, title in DRAWN.items():
            shown = tables.interval(metrics.get(metric), 100) if metrics else FAILED
            line[f"{title.capitalize()} (%)"] = shown
        recall = metrics.get(RECALL)
        line["Prompt recall (%)"] = percent(recall["value"]) if recall else NOTHING
        line["Mean turns"] = tables.interval(metrics.get("mean_turns"), 1)
        trained = pd.notna(first["optimizer_steps"])
        line["Steps"] = f"{int(first['optimizer_steps'])}" if trained else NOTHING
        line["Supervised tokens"] = f"{int(first['supervised_tokens']):,}" if trained else NOTHING
        line["Training GFLOP"] = f"{first['flops'] / 1e9:,.0f}" if trained else NOTHING
        lines.append(line)
    return pd.DataFrame(lines)


@dataclass(frozen=True)
class Extremes:
    """The points of an ablation with the most and the least success.

    best, worst: their labels, escaped; all of them where several are equal. best_rate,
    worst_rate: shares of `samples`. apart: whether their intervals do not overlap. points: how
    many were played.
    """

    best: str
    worst: str
    best_rate: float
    worst_rate: float
    apart: bool
    points: int
    samples: int

    def __str__(self) -> str:
        return (
            f"highest at {self.best} ({percent(self.best_rate)} %) and lowest at {self.worst} "
            f"({percent(self.worst_rate)} %)"
        )


def extremes(record: pd.DataFrame) -> Extremes | None:
    """Of an ablation; None where fewer than two points were played."""
    found = record[record["metric"] == SUCCESS]
    if len(found) < 2:
        return None
    ordered = found.sort_values("value", kind="stable")
    best, worst = ordered.iloc[-1], ordered.iloc[0]
    labels = {
        rate: listed([escape(str(point)) for point in found["point"][found["value"] == rate]])
        for rate in (best["value"], worst["value"])
    }
    return Extremes(
        best=labels[best["value"]],
        worst=labels[worst["value"]],
        best_rate=float(best["value"]),
        worst_rate=float(worst["value"]),
        apart=bool(worst["high"] < best["low"]),
        points=len(found),
        samples=int(best["n"]),
    )


def summarise_points(record: pd.DataFrame) -> str:
    """Which points had the most and the least success, and whether this test set tells them apart.

    Nothing where fewer than two points were played.
    """
    found = extremes(record)
    if found is None:
        return ""
    if found.best_rate == found.worst_rate:
        return paragraph(f"Success is {percent(found.best_rate)} % at every point.")
    return paragraph(
        f"Success is {found}, on {found.samples} samples.",
        f"The intervals of these two, the extremes of {found.points} points, do not overlap."
        if found.apart
        else "Their intervals overlap: this ablation does not show that the points differ.",
    )


def what_it_takes(results: list[TaskResults]) -> str:
    """What the ablations come to, for the summary; empty where none of this run is recorded."""
    defined, records = read_ablations()
    found = {
        name: extremes(record)
        for name, record in records.items()
        if not of_another_run(record, results)
    }
    played = {name: one for name, one in found.items() if one is not None}
    if not played:
        return ""
    apart = {name: one for name, one in played.items() if one.apart}
    alike = [escape(name) for name in played if name not in apart]
    sentences = [
        "**What it takes.** In the ablations (one thing changed at a time, row "
        f"{escape(defined.method)} of {escape(defined.task)}, one seed, below)"
    ]
    if apart:
        said = "; with ".join(f"{escape(name)} it is {one}" for name, one in apart.items())
        sentences.append(f"success has points whose intervals do not overlap: with {said}.")
    else:
        sentences.append("no two points have intervals of success that do not overlap.")
    if alike and apart:
        sentences.append(
            f"With {listed(alike)} the best and the worst point overlap: this test set does not "
            "show that what they change matters."
        )
    return paragraph(*sentences)


def for_summary(results: list[TaskResults], seed: int, row: str) -> str:
    """What ablations and seeds add to the summary.

    Args:
        results, seed: see `render`.
        row: whose spread over seeds is said.
    """
    parts = [what_it_takes(results)]
    for here in results:
        record = read_record(seeds_file(here.task), SEED_COLUMNS)
        if record is not None:
            parts.append(over_seeds(record, here, seed, row))
    return "\n\n".join(part for part in parts if part)


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
    other = [name for name, record in records.items() if of_another_run(record, results)]
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


def render(results: list[TaskResults], seed: int, folder: Path) -> str:
    """The report's sections on ablations and on seeds; writes tables and figures below `folder`.

    Args:
        results: of the run at hand.
        seed: params.yaml's.
        folder: reports/.

    Raises:
        UserError: a definition or a record is not as it should be.
    """
    defined, records = read_ablations()
    parts = [render_ablations(defined, records, results, folder)]
    seeded = {here.task: read_record(seeds_file(here.task), SEED_COLUMNS) for here in results}
    for here in results:
        record = seeded[here.task]
        if record is not None:
            parts.append(render_seeds(record, here, seed, folder))
    if all(record is None for record in seeded.values()):
        parts += ["## Seeds", "Not recorded yet. `make seeds` runs them."]
    return "\n\n".join(parts)
