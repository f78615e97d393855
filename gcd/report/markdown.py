"""reports/report.md and report.html: every number and every sentence computed from recorded files.

Nothing here depends on the clock, so the same records give the same bytes. Under every table stands
the file that its numbers come from, and the stage that wrote it.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gcd.core.records import FULL_PROMPT, write_text
from gcd.core.settings import ScoreSettings
from gcd.cost import REGIMES, ModelRecord
from gcd.report import cost_tables, figures, tables
from gcd.report.comparison_tables import (
    bold_cells,
    bold_summary,
    comparison_table,
    summarise_best,
    summarise_chosen,
)
from gcd.report.page import render_page
from gcd.report.results import TaskResults, loss_terms
from gcd.report.sentences import (
    limits,
    paragraph,
    source,
    summarise,
    summarise_break_even,
    summarise_costs,
    summarise_recall,
    summarise_trouble,
)
from gcd.report.summary import QUESTION, answer, holds_for, when_not
from gcd.report.tables import SUCCESS, VALID, percent
from gcd.report.transcripts import escape, render_samples


@dataclass(frozen=True)
class Sections:
    """Parts of the report that other modules render; an empty one is left out.

    experiments_in_summary: what ablations and seeds come to. compressed: what is left of a prompt.
    behaviour: what rows forgot and leak. further: rows of a wider profile. experiments: ablations
    and seeds. measured: seconds. provenance: where it all comes from.
    """

    experiments_in_summary: str
    compressed: str
    behaviour: str
    further: str
    experiments: str
    measured: str
    provenance: str


SUMMARY_NOTE = (
    "Percent. Score is the benchmark's own metric: success rate (OS interaction), step success "
    "rate (web browsing), reward (web shopping). Where all samples came out alike, the bootstrap's "
    "interval has no width: that is no certainty. Bold: the best row that is no bound, where it "
    "differs from every other one after correction (Holm)."
)
TRAINING_NOTE = (
    "Supervised tokens carry a loss, counted each time they are trained on; training GFLOP (10^9) "
    "leave out the generation of the data. Bytes to ship is what serving the row takes beside the "
    "base model: an adapter's file, a trained prefix, a prompt's text. Prompt positions are those "
    "that stand before every conversation."
)
FRONT_NOTE = paragraph(
    "The grey line joins the rows that no other beats in both: the Pareto front of success and "
    "FLOPs an episode."
)
LEFT_OUT_NOTE = (
    "Samples that cannot be played here are in no denominator. An episode that broke counts as 0."
)
COMPARED_NOTE = (
    "The row minus the other one, in points, on the same samples or states; intervals are the "
    "paired bootstrap's, p values are corrected by Holm's method for the number of rows. Valid "
    "actions are compared as each episode's share, which the results' pooled rate need not equal."
)
BREAK_EVEN_NOTE = (
    "After how many sessions (the mean of full_prompt's episodes, its turns held fixed) the FLOPs "
    "of making the data and of training are saved. The data are made once for all rows and stand "
    "in full with each; theirs are computed from the lengths of the texts that were kept."
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
        shown += [_image(f"{task}_success_against_cost", text + "."), FRONT_NOTE]
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
        "break_even": cost_tables.break_even_table(costs, rows),
    }
    failed = list(results.failures)
    return {name: tables.with_failures(table, results.rows, failed) for name, table in made.items()}


def render_results(results: TaskResults, settings: ScoreSettings) -> list[str]:
    """How the rows of a task did, and which of them differ."""
    teacher = results.scores[FULL_PROMPT].get("teacher_agreement")
    states = f"{int(teacher['n'])} states" if teacher else "no state"
    task, bold = results.task, bold_cells(results.compared, settings.confidence)
    return [
        f"## Results: {escape(task)}",
        summarise(results),
        tables.markdown(shown_tables(results)["results"], bold),
        source("stage `score`", "scores.json", f"tables/{task}_results.csv"),
        summarise_best(results.compared, settings.confidence),
        summarise_trouble(results),
        paragraph(
            "Success is the share of samples with score 1. Valid actions is the share of "
            "turns that held an action. Teacher agreement is the share of equal actions in "
            f"{states} that the prompted teacher visited and had a valid action in."
        ),
        summarise_recall(results),
        f"### {escape(settings.compared_row)} against each row: {escape(task)}",
        tables.markdown(comparison_table(results.compared, results.rows)),
        source("stage `score`", "comparisons.json"),
        summarise_chosen(results.compared, settings.confidence),
        paragraph(COMPARED_NOTE),
    ]


def render_costs(results: TaskResults) -> list[str]:
    """What the rows of a task cost, and when that pays."""
    task, shown = results.task, shown_tables(results)
    return [
        f"### Costs: {escape(task)}",
        tables.markdown(shown["costs"]),
        source("stage `measure_cost`", "costs.json", f"tables/{task}_costs.csv"),
        paragraph(
            "Means per episode. Input tokens count everything that is sent, in every turn. "
            "recompute: every turn reads prompt and conversation anew; session cache: keys "
            "and values live for one episode; prefix cache: those of the prompt are also "
            "shared by all episodes and cost none of them anything. 1 GFLOP is 10^9. The largest "
            "cache is that of one episode while it replies: with recompute it is given up after "
            "every reply, with a session cache it stays for each open session, and with a prefix "
            "cache a session keeps what the last column says, the prompt's being there once."
        ),
        summarise_costs(results),
        tables.markdown(shown["relative_costs"]),
        source("stage `measure_cost`", "costs.json"),
        f"### What each row was trained on and what it costs: {escape(task)}",
        tables.markdown(shown["training"]),
        source("stage `measure_cost`", "costs.json", f"tables/{task}_training.csv"),
        paragraph(TRAINING_NOTE),
        f"### When training pays: {escape(task)}",
        tables.markdown(shown["break_even"]),
        source("stage `measure_cost`", "costs.json"),
        summarise_break_even(results),
        paragraph(BREAK_EVEN_NOTE),
    ]


def render_task(results: TaskResults, settings: ScoreSettings, shown: str) -> str:
    """The section of one task, without its transcripts; `shown` is the Markdown of its figures."""
    parts = render_results(results, settings) + render_costs(results)
    parts += [f"### Figures: {escape(results.task)}", shown]
    return "\n\n".join(part for part in parts if part)


def render_left_out(left_out: pd.DataFrame) -> str:
    """The table of `tables.left_out_table`, or a sentence where it is empty."""
    if left_out.empty:
        return "Every sample was played, and none broke."
    return "\n\n".join([tables.markdown(left_out), paragraph(LEFT_OUT_NOTE)])


def write_tables(results: TaskResults, confidence: float, folder: Path) -> None:
    """The task's tables, twice: tidy numbers in a .csv, and as the report shows them in a .md."""
    failed = list(results.failures)
    tidy = {
        "results": tables.tidy_scores(results.scores, results.rows),
        "costs": tables.with_failures(
            cost_tables.tidy_costs(results.costs, results.played), results.rows, failed
        ),
        "training": tables.with_failures(
            cost_tables.tidy_training(results.costs, results.played), results.rows, failed
        ),
        "rates": tables.rates(results.scores, results.played),
    }
    for name, frame in tidy.items():
        tables.write_csv(frame, folder / f"{results.task}_{name}.csv")
    bold = {"results": bold_cells(results.compared, confidence)}
    for name, frame in shown_tables(results).items():
        tables.write_markdown(frame, folder / f"{results.task}_{name}.md", bold.get(name, ()))


def render_summary(
    results: list[TaskResults],
    model: ModelRecord,
    settings: ScoreSettings,
    experiments_in_summary: str,
    folder: Path,
) -> list[str]:
    """The first screen; writes its table and its figure."""
    rows = list(dict.fromkeys(row for found in results for row in found.rows))
    summary = tables.summary_table(
        {found.task: found.scores for found in results},
        rows,
        {found.task: list(found.failures) for found in results},
    )
    bold = {
        (row, tables.summary_title(found.task, title))
        for found in results
        for row, title in bold_summary(found.compared, settings.confidence)
    }
    tables.write_markdown(summary, folder / "tables" / "summary.md", bold)
    shares = {found.task: tables.rates(found.scores, found.played) for found in results}
    figures.save(figures.draw_summary(shares, rows), folder / "figures" / "summary")
    return [
        "# Generative Context Distillation: results",
        "## Summary",
        QUESTION,
        "**The answer,** computed from the records:",
        "\n".join(answer(found, settings.compared_row) for found in results),
        tables.markdown(summary, bold),
        source("stages `score` and `measure_cost`", "scores.json", "costs.json"),
        paragraph(SUMMARY_NOTE),
        _image("summary", "Score and valid actions of every row, one panel for each task."),
        experiments_in_summary,
        when_not(results, settings.compared_row),
        holds_for(results, model, settings.confidence),
    ]


def write_report(
    results: list[TaskResults],
    data: pd.DataFrame,
    left_out: pd.DataFrame,
    model: ModelRecord,
    settings: ScoreSettings,
    sections: Sections,
    folder: Path,
) -> None:
    """Write `folder`/report.md, report.html, tables/ and figures/.

    `data` and `left_out` are `tables.data_table`'s and `tables.left_out_table`'s.
    """
    parts = render_summary(results, model, settings, sections.experiments_in_summary, folder)
    for found in results:
        shown = draw_figures(found, folder / "figures")
        parts.append(render_task(found, settings, shown))
        write_tables(found, settings.confidence, folder / "tables")
    parts += [sections.compressed, sections.behaviour, sections.further]
    parts += [sections.experiments, sections.measured]
    if not data.empty:
        counted = source("the `make_…` stages", "tables/data.csv")
        parts += ["## Generated data", tables.markdown(data), counted, paragraph(DATA_NOTE)]
        tables.write_csv(data, folder / "tables" / "data.csv")
        tables.write_markdown(data, folder / "tables" / "data.md")
    parts += ["## Samples left out", render_left_out(left_out)]
    parts += [
        "## Transcripts",
        paragraph(
            "The first sample, in the order of the records, that fits the rule in the title and "
            "is not shown already. Long lines are wrapped and long messages cut; the whole is in "
            "reports/episodes. All samples and all rows, to browse and to search: "
            "[transcripts.html](transcripts.html)."
        ),
    ]
    for found in results:
        ordered = {row: found.records[row] for row in found.played}
        parts.append(render_samples(found.task, ordered))
    parts += [sections.provenance]
    parts += ["## What these numbers do not say", limits(results, model, settings.confidence)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", render_page(text, folder))
