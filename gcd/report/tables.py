"""The report's tables: from the recorded JSON files to DataFrames, CSV and Markdown."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from gcd.core.errors import UserError
from gcd.core.records import SkippedSample, read_json, read_records, write_text
from gcd.report.transcripts import escape
from gcd.rows import Row

NOTHING = "n/a"  # a metric without cases
FAILED = "failed"  # a row without metrics
SUCCESS = "success_rate"
VALID = "valid_action_rate"
METRIC_TITLES = {  # the columns after the success rates
    "mean_score": "Mean score (%)",
    "relative_to_full_prompt": "Relative to full_prompt (%)",
    VALID: "Valid actions (%)",
    "teacher_agreement": "Teacher agreement (%)",
    "mean_turns": "Mean turns",
}
RECALL_TITLES = {  # means over a few requests, which no interval is drawn from
    "prompt_recall": "Prompt recall (%)",
    "rouge_l": "ROUGE-L (%)",
}

Scores = dict[str, dict[str, dict[str, float]]]  # of one task: {row: {metric: estimate}}


def markdown(frame: pd.DataFrame, bold: Collection[tuple[str, str]] = ()) -> str:
    """A pipe table: first column to the left, the others to the right, cells as literal text.

    `bold` are (value of the first column, name of the column) of cells. Nothing for a table without
    rows.
    """
    if frame.empty:
        return ""
    header = [escape(str(column)) for column in frame.columns]
    rule = [":--", *["--:"] * (len(header) - 1)]
    lines = [header, rule]
    for row in frame.astype(str).itertuples(index=False):
        cells = zip(frame.columns, row, strict=True)
        marked = [
            f"**{escape(cell)}**" if (row[0], name) in bold else escape(cell)
            for name, cell in cells
        ]
        lines.append(marked)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """0.6111 -> "61.1"."""
    return f"{100 * share:.1f}"


def interval(estimate: dict[str, float] | None, scale: float) -> str:
    """Value and interval as in "61.1 (44.9-75.2)", after multiplying by `scale`."""
    if estimate is None:
        return NOTHING
    value, low, high = (f"{scale * estimate[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} ({low}-{high})"


def tier_metrics(scores: Scores) -> dict[str, str]:
    """{metric: tier} of a task's success rates by tier, sorted."""
    names = {name for metrics in scores.values() for name in metrics}
    return {
        name: name.removeprefix(f"{SUCCESS}_")
        for name in sorted(names)
        if name.startswith(f"{SUCCESS}_")
    }


def measure_metrics(scores: Scores) -> list[str]:
    """The metrics that are the task's own, sorted."""
    known = {SUCCESS, *METRIC_TITLES, *RECALL_TITLES, *tier_metrics(scores)}
    return sorted({name for metrics in scores.values() for name in metrics} - known)


def with_failures(frame: pd.DataFrame, rows: list[str], failures: list[str]) -> pd.DataFrame:
    """`frame`, whose first column names rows, with `failed` in every cell of those that did.

    `rows` is the order of all rows; one that is neither in `frame` nor failed stays out. An empty
    `frame`, which has no columns, stays empty.
    """
    if frame.empty:
        return frame
    name = str(frame.columns[0])
    lines = {str(line[name]): line for line in frame.to_dict("records")}
    lines |= {row: {name: row, **dict.fromkeys(frame.columns[1:], FAILED)} for row in failures}
    return pd.DataFrame([lines[row] for row in rows if row in lines], columns=frame.columns)


def tidy_scores(scores: Scores, rows: list[str]) -> pd.DataFrame:
    """One line an estimate: row, metric, value, low, high, n; one without numbers if it failed."""
    lines = [
        {"row": row, "metric": metric, **estimate}
        for row in rows
        for metric, estimate in scores.get(row, {FAILED: {}}).items()
    ]
    return pd.DataFrame(lines, columns=["row", "metric", "value", "low", "high", "n"])


def rates(scores: Scores, rows: list[str]) -> pd.DataFrame:
    """One line a row, in percent: what is drawn of every task, here and by `dvc plots`."""
    names = {"score": "mean_score", "valid_actions": VALID, "agreement": "teacher_agreement"}
    return pd.DataFrame(
        {
            "row": row,
            **{
                short: round(100 * scores[row][metric]["value"], 1)
                if metric in scores[row]
                else None
                for short, metric in names.items()
            },
        }
        for row in rows
    )


def results_table(scores: Scores, rows: list[str]) -> pd.DataFrame:
    """Results as they are printed: rates in percent, each with its interval."""
    tiers = tier_metrics(scores)
    lines = []
    for row in rows:
        metrics = scores[row]
        line = {"Row": row, "Success, all (%)": interval(metrics.get(SUCCESS), 100)}
        for metric, tier in tiers.items():
            line[f"Success, {tier} (%)"] = interval(metrics.get(metric), 100)
        for metric in measure_metrics(scores):
            title = metric.replace("_", " ").capitalize()
            line[f"{title} (%)"] = interval(metrics.get(metric), 100)
        for metric, title in METRIC_TITLES.items():
            scale = 1 if metric == "mean_turns" else 100
            line[title] = interval(metrics.get(metric), scale)
        for metric, title in RECALL_TITLES.items():
            line[title] = percent(metrics[metric]["value"]) if metric in metrics else NOTHING
        line["Samples"] = str(int(metrics[SUCCESS]["n"]))
        lines.append(line)
    return pd.DataFrame(lines)


SUMMARY_TITLES = {"score": "mean_score", "valid actions": VALID}


def summary_title(task: str, title: str) -> str:
    """The column of one of SUMMARY_TITLES in the summary's table."""
    return f"{task.replace('_', ' ')}: {title}"


def summary_table(
    tasks: dict[str, Scores], rows: list[str], failed: dict[str, list[str]]
) -> pd.DataFrame:
    """Rows x tasks: the benchmark's metric and the share of valid actions, in percent.

    `failed` are the rows that failed in each task.
    """
    lines = []
    for row in rows:
        line = {"Row": row}
        for task, scores in tasks.items():
            metrics = scores.get(row, {})
            for title, metric in SUMMARY_TITLES.items():
                shown = interval(metrics.get(metric), 100)
                line[summary_title(task, title)] = FAILED if row in failed[task] else shown
        lines.append(line)
    return pd.DataFrame(lines)


def data_table(folder: Path) -> pd.DataFrame:
    """What synthesis kept and rejected, from `folder`/TASK/NAME_counts.json; empty if none.

    Raises UserError if a file lacks `kept` or `rejected`.
    """
    lines = []
    for path in sorted(folder.glob("*/*_counts.json")):
        counts = read_json(path)
        if not isinstance(counts, dict) or not {"kept", "rejected"} <= counts.keys():
            raise UserError(
                f'{path}: expected {{"kept": n, "rejected": {{reason: n}}}}. Run `dvc repro`.'
            )
        reasons = [f"{reason}: {count}" for reason, count in sorted(counts["rejected"].items())]
        lines.append(
            {
                "Task": path.parent.name,
                "Data": path.name.removesuffix("_counts.json").replace("_", " "),
                "Kept": counts["kept"],
                "Rejected": sum(counts["rejected"].values()),
                "Reasons": "; ".join(reasons) or "none",
            }
        )
    return pd.DataFrame(lines, columns=["Task", "Data", "Kept", "Rejected", "Reasons"])


def left_out_table(folder: Path, tasks: dict[str, dict[str, Row]]) -> pd.DataFrame:
    """What was not played, and what broke: one line a reason, with the number of samples.

    Args:
        folder: `folder`/TASK/skipped.jsonl lists the samples that `prepare` left out.
        tasks: {task: {row: its records}}; an episode with an `error` counts 0 and is listed.
    """
    found: list[tuple[str, str, str, str]] = []
    for task, rows in tasks.items():
        for sample in read_records(folder / task / "skipped.jsonl", SkippedSample):
            found.append((task, "not played", sample.reason, sample.index))
        for name, row in rows.items():
            found += [
                (task, f"{name}: {episode.status}, scored 0", episode.error, episode.index)
                for episode in row.episodes
                if episode.error
            ]
    columns = ["Task", "What", "Reason", "Sample"]
    frame = pd.DataFrame(found, columns=columns)
    grouped = frame.groupby(columns[:3], sort=False)["Sample"].agg(Samples="count", First="first")
    return grouped.reset_index()


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` with the same bytes on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def write_markdown(frame: pd.DataFrame, path: Path, bold: Collection[tuple[str, str]] = ()) -> None:
    """Write `frame` as the report shows it; see `markdown`."""
    write_text(path, markdown(frame, bold) + "\n")
