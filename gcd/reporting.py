"""reports/report.md: every number and every sentence computed from recorded files.

Nothing here depends on the clock or on the machine, so the same records give the same bytes.
"""

from pathlib import Path

import pandas as pd

from gcd import cost_tables, figures, tables
from gcd.core.records import FULL_PROMPT, write_text
from gcd.cost import REGIMES, ModelRecord
from gcd.results import TaskResults, loss_terms
from gcd.sentences import (
    limits,
    paragraph,
    summarise,
    summarise_costs,
    summarise_recall,
    summarise_trouble,
)
from gcd.tables import SUCCESS, VALID, percent
from gcd.transcripts import escape, render_samples

SUMMARY_NOTE = (
    "Percent. Score is the benchmark's own metric: success rate (OS interaction), step success "
    "rate (web browsing), reward (web shopping)."
)
TRAINING_NOTE = (
    "Supervised tokens carry a loss, counted each time they are trained on; training GFLOP (10^9) "
    "leave out the generation of the data. Bytes to ship is what serving the row takes beside the "
    "base model: an adapter's file, a trained prefix, a prompt's text. Prompt positions are those "
    "that stand before every conversation."
)
LEFT_OUT_NOTE = (
    "Samples that cannot be played here are in no denominator. An episode that broke counts as 0."
)
DATA_NOTE = (
    "Rejected counts generations. A conversation keeps what came before a rejected turn, so that "
    "kept and rejected ones may add up to more than were begun."
)


def draw_figures(results: TaskResults, folder: Path) -> str:
    """Write the task's figures into `folder`; returns the Markdown that shows them."""
    rows, scores, task = results.played, results.scores, results.task
    tidy = tables.tidy_scores(scores, rows)
    tiers = {metric: f"success, {tier}" for metric, tier in tables.tier_metrics(scores).items()}
    metrics = {SUCCESS: "success, all", **tiers, VALID: "valid actions"}
    figure = figures.draw_success(tidy, results.rows, list(results.failures), metrics)
    figures.save(figure, folder / f"{task}_success")
    rates = ", ".join(f"{row} {percent(scores[row][SUCCESS]['value'])} %" for row in rows)
    shown = [
        _image(
            f"{task}_success",
            f"Success rates and valid actions with intervals. Success, all samples: {rates}.",
        ),
    ]
    priced = cost_tables.priced(results.costs, rows)
    if priced:
        points = pd.DataFrame(
            {"row": row, **scores[row][SUCCESS], **results.costs[row]["flops"]} for row in priced
        )
        figure = figures.draw_success_against_cost(points, results.rows)
        figures.save(figure, folder / f"{task}_success_against_cost")
        text = "Success rate against FLOPs per episode, in three panels: " + ", ".join(
            cost_tables.REGIME_NAMES[regime] for regime in REGIMES
        )
        shown.append(_image(f"{task}_success_against_cost", text + "."))
    if results.losses:
        terms = {row: loss_terms(frame) for row, frame in results.losses.items()}
        figures.save(figures.draw_losses(results.losses, terms), folder / f"{task}_loss")
        lasts = ", ".join(
            f"{row} {frame['loss'].iloc[-1]:.3g} at step {frame['step'].iloc[-1]}"
            for row, frame in results.losses.items()
        )
        shown.append(_image(f"{task}_loss", f"Training losses by step. Last loss: {lasts}."))
    return "\n\n".join(shown)


def _image(name: str, text: str) -> str:
    return f"![{escape(text)}](figures/{name}.svg)"


def shown_tables(results: TaskResults) -> dict[str, pd.DataFrame]:
    """The task's tables as they are printed, by name; rows that failed are in each of them."""
    scores, costs, rows = results.scores, results.costs, results.played
    made = {
        "results": tables.results_table(scores, rows),
        "costs": cost_tables.costs_table(costs, rows),
        "relative_costs": cost_tables.relative_costs_table(costs, rows),
        "training": cost_tables.training_table(costs, rows),
    }
    failed = list(results.failures)
    return {name: tables.with_failures(table, results.rows, failed) for name, table in made.items()}


def render_task(results: TaskResults, shown: str) -> str:
    """The section of one task, without its transcripts; `shown` is the Markdown of its figures."""
    teacher = results.scores[FULL_PROMPT].get("teacher_agreement")
    states = f"{int(teacher['n'])} states" if teacher else "no state"
    return "\n\n".join(
        part
        for part in [
            f"## Results: {escape(results.task)}",
            summarise(results),
            tables.markdown(shown_tables(results)["results"]),
            summarise_trouble(results),
            paragraph(
                "Success is the share of samples with score 1. Valid actions is the share of "
                "turns that held an action. Teacher agreement is the share of equal actions in "
                f"{states} that the prompted teacher visited and had a valid action in."
            ),
            summarise_recall(results),
            f"### Costs: {escape(results.task)}",
            tables.markdown(shown_tables(results)["costs"]),
            paragraph(
                "Means per episode. Input tokens count everything that is sent, in every turn. "
                "recompute: every turn reads prompt and conversation anew; session cache: keys "
                "and values live for one episode; prefix cache: those of the prompt are also "
                "shared by all episodes and cost none of them anything. 1 GFLOP is 10^9."
            ),
            summarise_costs(results),
            tables.markdown(shown_tables(results)["relative_costs"]),
            f"### What each row was trained on and what it costs: {escape(results.task)}",
            tables.markdown(shown_tables(results)["training"]),
            paragraph(TRAINING_NOTE),
            f"### Figures: {escape(results.task)}",
            shown,
        ]
        if part
    )


def render_left_out(left_out: pd.DataFrame) -> str:
    """The table of `tables.left_out_table`, or a sentence where it is empty."""
    if left_out.empty:
        return "Every sample was played, and none broke."
    return "\n\n".join([tables.markdown(left_out), paragraph(LEFT_OUT_NOTE)])


def write_report(
    results: list[TaskResults],
    data: pd.DataFrame,
    left_out: pd.DataFrame,
    behaviour: str,
    further: str,
    model: ModelRecord,
    confidence: float,
    folder: Path,
) -> None:
    """Write `folder`/report.md, tables/ and figures/.

    `data` and `left_out` are `tables.data_table`'s and `tables.left_out_table`'s; `behaviour` and
    `further` are the sections of `probe_tables.write_section` and `further_rows.render`.

    A table is there twice: tidy numbers in a .csv, and as the report shows it in a .md.
    """
    parts = [
        "# Generative Context Distillation: results",
        paragraph(
            "An agent's prompt is internalised into adapter weights (arXiv 2411.15927). The row "
            "full_prompt is the base model with its prompt: the teacher, and the upper bound; "
            "no_prompt is the base model without it: the lower bound. The costs say how many "
            "prompt tokens each row carries. This page is computed from recorded files by "
            "`python -m stages.report`; "
            f"brackets are {100 * confidence:g} % intervals."
        ),
    ]
    rows = list(dict.fromkeys(row for found in results for row in found.rows))
    summary = tables.summary_table(
        {found.task: found.scores for found in results},
        rows,
        {found.task: list(found.failures) for found in results},
    )
    tables.write_markdown(summary, folder / "tables" / "summary.md")
    parts += ["## Summary", tables.markdown(summary), paragraph(SUMMARY_NOTE)]
    for found in results:
        parts.append(render_task(found, draw_figures(found, folder / "figures")))
        failed = list(found.failures)
        for name, frame in {
            "results": tables.tidy_scores(found.scores, found.rows),
            "costs": tables.with_failures(
                cost_tables.tidy_costs(found.costs, found.played), found.rows, failed
            ),
            "training": tables.with_failures(
                cost_tables.tidy_training(found.costs, found.played), found.rows, failed
            ),
        }.items():
            tables.write_csv(frame, folder / "tables" / f"{found.task}_{name}.csv")
        for name, frame in shown_tables(found).items():
            tables.write_markdown(frame, folder / "tables" / f"{found.task}_{name}.md")
    parts += [section for section in (behaviour, further) if section]
    if not data.empty:
        parts += ["## Generated data", tables.markdown(data), paragraph(DATA_NOTE)]
        tables.write_csv(data, folder / "tables" / "data.csv")
        tables.write_markdown(data, folder / "tables" / "data.md")
    parts += ["## Samples left out", render_left_out(left_out)]
    parts += [
        "## Transcripts",
        paragraph(
            "The first sample, in the order of the records, that fits the rule in the title and "
            "is not shown already. Long lines are wrapped and long messages cut; the whole is in "
            "reports/episodes."
        ),
    ]
    for found in results:
        ordered = {row: found.records[row] for row in found.played}
        parts.append(render_samples(found.task, ordered))
    parts += ["## What these numbers do not say", limits(results, model, confidence)]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
