"""The report's tables: from the recorded JSON files to DataFrames, CSV and Markdown."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from gcd.core.errors import UserError
from gcd.core.records import SkippedSample, read_records, write_text
from gcd.cost import REGIMES
from gcd.rows import FULL_PROMPT, Row
from gcd.transcripts import escape

NOTHING = "n/a"  # a metric without cases
SUCCESS = "success_rate"
VALID = "valid_action_rate"
METRIC_TITLES = {  # the columns after the success rates
    "mean_score": "Mean score (%)",
    "relative_to_full_prompt": "Relative to full_prompt (%)",
    VALID: "Valid actions (%)",
    "teacher_agreement": "Teacher agreement (%)",
    "mean_turns": "Mean turns",
}
REGIME_NAMES = {
    "recompute": "recompute",
    "session_cache": "session cache",
    "prefix_cache": "prefix cache",
}

Scores = dict[str, dict[str, dict[str, float]]]  # of one task: {row: {metric: estimate}}
Costs = dict[str, dict[str, Any]]  # of one task: {row: costs}


def read_json(path: Path) -> Any:
    """The JSON value in `path`; raises UserError if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: expected JSON, but {error}. Delete it and run `dvc repro`."
        ) from error


def markdown(frame: pd.DataFrame) -> str:
    """A pipe table: first column to the left, the others to the right, cells as literal text."""
    header = [escape(str(column)) for column in frame.columns]
    rule = [":--", *["--:"] * (len(header) - 1)]
    cells = [[escape(str(cell)) for cell in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *cells])


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
    known = {SUCCESS, *METRIC_TITLES, *tier_metrics(scores)}
    return sorted({name for metrics in scores.values() for name in metrics} - known)


def tidy_scores(scores: Scores, rows: list[str]) -> pd.DataFrame:
    """One line an estimate: row, metric, value, low, high, n."""
    lines = [
        {"row": row, "metric": metric, **estimate}
        for row in rows
        for metric, estimate in scores[row].items()
    ]
    return pd.DataFrame(lines, columns=["row", "metric", "value", "low", "high", "n"])


def tidy_costs(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """One line a row; FLOPs and ratios as columns such as `flops_recompute`."""
    lines = []
    for row in rows:
        line: dict[str, Any] = {"row": row}
        for name, value in costs.get(row, {}).items():
            if isinstance(value, dict):
                line |= {f"{name}_{regime}": value[regime] for regime in REGIMES}
            else:
                line[name] = value
        if row in costs:
            lines.append(line)
    return pd.DataFrame(lines)


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
        line["Samples"] = str(int(metrics[SUCCESS]["n"]))
        lines.append(line)
    return pd.DataFrame(lines)


def summary_table(tasks: dict[str, Scores], rows: list[str]) -> pd.DataFrame:
    """Rows x tasks: the benchmark's metric and the share of valid actions, in percent."""
    lines = []
    for row in rows:
        line = {"Row": row}
        for task, scores in tasks.items():
            metrics = scores.get(row, {})
            name = task.replace("_", " ")
            line[f"{name}: score"] = interval(metrics.get("mean_score"), 100)
            line[f"{name}: valid actions"] = interval(metrics.get(VALID), 100)
        lines.append(line)
    return pd.DataFrame(lines)


def flops(value: float) -> str:
    """FLOPs in units of 10^9, one digit after the point."""
    return f"{value / 1e9:,.1f}"


def costs_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """Costs as they are printed: tokens, FLOPs, cache."""
    return pd.DataFrame(
        {
            "Row": row,
            "Episodes": found["episodes"],
            "Prompt tokens": found["prompt_tokens"],
            "Input tokens": f"{found['input_tokens']:,.1f}",
            "Output tokens": f"{found['output_tokens']:,.1f}",
            **{
                f"GFLOP, {REGIME_NAMES[regime]}": flops(found["flops"][regime])
                for regime in REGIMES
            },
            "Largest cache (MB)": f"{found['kv_bytes_peak'] / 1e6:.1f}",
        }
        for row, found in ((row, costs[row]) for row in rows if row in costs)
    )


def relative_costs_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """FLOPs in percent of full_prompt's: each row's own episodes, and full_prompt's episodes."""
    groups = {
        "own episodes": "flops_relative_to_full_prompt",
        f"{FULL_PROMPT}'s episodes": "flops_relative_on_teacher_episodes",
    }
    return pd.DataFrame(
        {
            "Row": row,
            **{
                f"{label}, {REGIME_NAMES[regime]} (%)": percent(costs[row][key][regime])
                for label, key in groups.items()
                for regime in REGIMES
            },
        }
        for row in rows
        if row in costs
    )


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


def write_markdown(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as the report shows it."""
    write_text(path, markdown(frame) + "\n")
