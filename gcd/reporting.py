"""reports/report.md: every number and every sentence computed from recorded files.

Nothing here depends on the clock or on the machine, so the same records give the same bytes.
"""

import textwrap
from pathlib import Path

import pandas as pd

from gcd import figures, tables
from gcd.core.records import write_text
from gcd.cost import REGIMES, ModelRecord
from gcd.results import TaskResults, loss_terms
from gcd.rows import FULL_PROMPT
from gcd.tables import SUCCESS, VALID, percent
from gcd.transcripts import escape, render_samples

RELATIVE = "relative_to_full_prompt"
SUMMARY_NOTE = (
    "Percent. Score is the benchmark's own metric: success rate (OS interaction), step success "
    "rate (web browsing), reward (web shopping)."
)
LEFT_OUT_NOTE = (
    "Samples that cannot be played here are in no denominator. An episode that broke counts as 0."
)
DATA_NOTE = (
    "Rejected counts generations. A conversation keeps what came before a rejected turn, so that "
    "kept and rejected ones may add up to more than were begun."
)


def paragraph(*sentences: str) -> str:
    """One Markdown paragraph, wrapped."""
    return textwrap.fill(" ".join(sentences), 100, break_long_words=False, break_on_hyphens=False)


def listed(items: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def summarise(results: TaskResults) -> str:
    """The task's results in sentences."""
    scores = results.scores
    samples = int(scores[FULL_PROMPT][SUCCESS]["n"])
    rates = [
        f"{escape(row)} in {tables.interval(scores[row][SUCCESS], 1e2)} %" for row in results.rows
    ]
    sentences = [f"Over {samples} test samples, success came for {listed(rates)}."]
    others = [row for row in results.rows if row != FULL_PROMPT and RELATIVE in scores[row]]
    groups = {
        "below": [row for row in others if scores[row][RELATIVE]["high"] < 1],
        "above": [row for row in others if scores[row][RELATIVE]["low"] > 1],
    }
    unclear = [row for row in others if row not in groups["below"] + groups["above"]]
    for side, rows in groups.items():
        if rows:
            names = listed([escape(row) for row in rows])
            sentences.append(
                f"Relative to full_prompt on the same samples, the whole interval lies {side} "
                f"100 % for {names}."
            )
    if unclear:
        sentences.append(
            f"For {listed([escape(row) for row in unclear])} it contains 100 %: this test set "
            "does not tell such a row from full_prompt."
        )
    if RELATIVE not in scores[FULL_PROMPT]:
        sentences.append("full_prompt solved none, so nothing can be put in relation to it.")
    return paragraph(*sentences)


def summarise_costs(results: TaskResults) -> str:
    """What the rows need on the same turns as full_prompt; rows that need the same together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in results.rows:
        if row != FULL_PROMPT and row in results.costs:
            shares = results.costs[row]["flops_relative_on_teacher_episodes"]
            key = tuple(percent(shares[regime]) for regime in REGIMES)
            alike.setdefault(key, []).append(escape(row))
    sentences = [
        f"Over the turns that full_prompt played, {listed(rows)} would need {recompute} % of its "
        f"FLOPs if everything is recomputed, {session} % if a cache lives for an episode, and "
        f"{prefix} % if full_prompt shares its prompt's cache across episodes."
        for (recompute, session, prefix), rows in alike.items()
    ]
    return paragraph(*sentences)


def draw_figures(results: TaskResults, folder: Path) -> str:
    """Write the task's figures into `folder`; returns the Markdown that shows them."""
    rows, scores, task = results.rows, results.scores, results.task
    tidy = tables.tidy_scores(scores, rows)
    tiers = {metric: f"success, {tier}" for metric, tier in tables.tier_metrics(scores).items()}
    metrics = {SUCCESS: "success, all", **tiers, VALID: "valid actions"}
    figures.save(figures.draw_success(tidy, rows, metrics), folder / f"{task}_success")
    rates = ", ".join(f"{row} {percent(scores[row][SUCCESS]['value'])} %" for row in rows)
    shown = [
        _image(
            f"{task}_success",
            f"Success rates and valid actions with intervals. Success, all samples: {rates}.",
        ),
    ]
    priced = [row for row in rows if row in results.costs]
    if priced:
        points = pd.DataFrame(
            {"row": row, **scores[row][SUCCESS], **results.costs[row]["flops"]} for row in priced
        )
        figure = figures.draw_success_against_cost(points, priced)
        figures.save(figure, folder / f"{task}_success_against_cost")
        text = "Success rate against FLOPs per episode, in three panels: " + ", ".join(
            tables.REGIME_NAMES[regime] for regime in REGIMES
        )
        shown.append(_image(f"{task}_success_against_cost", text + "."))
    if results.losses:
        terms = {method: loss_terms(frame) for method, frame in results.losses.items()}
        figures.save(figures.draw_losses(results.losses, terms), folder / f"{task}_loss")
        lasts = ", ".join(
            f"{method} {frame['loss'].iloc[-1]:.3g} at step {frame['step'].iloc[-1]}"
            for method, frame in results.losses.items()
        )
        shown.append(_image(f"{task}_loss", f"Training losses by step. Last loss: {lasts}."))
    return "\n\n".join(shown)


def _image(name: str, text: str) -> str:
    return f"![{escape(text)}](figures/{name}.svg)"


def limits(results: list[TaskResults], model: ModelRecord, confidence: float) -> str:
    """What the numbers do not say."""
    counts = [
        f"{int(found.scores[FULL_PROMPT][SUCCESS]['n'])} ({escape(found.task)})"
        for found in results
    ]
    points = [
        f"The base model is {escape(model.source)} with {model.parameters / 1e6:,.0f} million "
        "parameters. How well a prompt can be internalised may differ with size; these numbers "
        "say nothing about other models.",
        "Each trained row was trained once, and every row played once, greedily, on "
        f"{listed(counts)} test samples. The intervals ({100 * confidence:g} %) cover the choice "
        "of samples, not that of the seed, of the generated data or of the settings.",
        "Intervals of single rates that overlap do not show that two rows are equal, nor does "
        "the order of two such rows show which is better.",
        "The interval of the ratio to full_prompt comes from resampling the samples in pairs; "
        "resamples in which full_prompt solves nothing have no ratio and are dropped.",
        "Samples of one family resemble each other, and so do teacher states of one episode; "
        "the intervals of success and agreement treat them as independent and are too narrow "
        "by an unknown amount.",
        "Teacher agreement asks for the teacher's exact action. Another action may be as good.",
        "FLOPs are counted from token counts, not timed. They leave out the training, the "
        "generation of its data, memory traffic and batching, so they are no latency and no "
        "break-even point.",
        "The FLOPs of a row's own episodes depend on how it plays: a row that gives up early is "
        "cheap. The columns over full_prompt's episodes hold the turns fixed.",
    ]
    return "\n".join(
        textwrap.fill(
            f"- {point}",
            100,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for point in points
    )


def render_task(results: TaskResults, shown: str) -> str:
    """The section of one task, without its transcripts; `shown` is the Markdown of its figures."""
    teacher = results.scores[FULL_PROMPT].get("teacher_agreement")
    states = f"{int(teacher['n'])} states" if teacher else "no state"
    return "\n\n".join(
        part
        for part in [
            f"## Results: {escape(results.task)}",
            summarise(results),
            tables.markdown(tables.results_table(results.scores, results.rows)),
            paragraph(
                "Success is the share of samples with score 1. Valid actions is the share of "
                "turns that held an action. Teacher agreement is the share of equal actions in "
                f"{states} that the prompted teacher visited and had a valid action in."
            ),
            f"### Costs: {escape(results.task)}",
            tables.markdown(tables.costs_table(results.costs, results.rows)),
            paragraph(
                "Means per episode. Input tokens count everything that is sent, in every turn. "
                "recompute: every turn reads prompt and conversation anew; session cache: keys "
                "and values live for one episode; prefix cache: those of the prompt are also "
                "shared by all episodes and cost none of them anything. 1 GFLOP is 10^9."
            ),
            summarise_costs(results),
            tables.markdown(tables.relative_costs_table(results.costs, results.rows)),
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
    model: ModelRecord,
    confidence: float,
    folder: Path,
) -> None:
    """Write `folder`/report.md, tables/ and figures/.

    `data` and `left_out` are `tables.data_table`'s and `tables.left_out_table`'s.

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
    summary = tables.summary_table({found.task: found.scores for found in results}, rows)
    tables.write_markdown(summary, folder / "tables" / "summary.md")
    parts += ["## Summary", tables.markdown(summary), paragraph(SUMMARY_NOTE)]
    for found in results:
        parts.append(render_task(found, draw_figures(found, folder / "figures")))
        for name, frame in {
            "results": tables.tidy_scores(found.scores, found.rows),
            "costs": tables.tidy_costs(found.costs, found.rows),
        }.items():
            tables.write_csv(frame, folder / "tables" / f"{found.task}_{name}.csv")
        for name, frame in {
            "results": tables.results_table(found.scores, found.rows),
            "costs": tables.costs_table(found.costs, found.rows),
            "relative_costs": tables.relative_costs_table(found.costs, found.rows),
        }.items():
            tables.write_markdown(frame, folder / "tables" / f"{found.task}_{name}.md")
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
        ordered = {row: found.records[row] for row in found.rows}
        parts.append(render_samples(found.task, ordered))
    parts += ["## What these numbers do not say", limits(results, model, confidence)]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
