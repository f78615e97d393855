"""The report's section on what the rows forgot of the base model, and what they leak."""

from pathlib import Path

import pandas as pd

from gcd.core.errors import UserError
from gcd.core.records import FULL_PROMPT
from gcd.probe_scores import ProbedRow, ProbedRows, ProbeScores, probed
from gcd.report import tables
from gcd.report.results import TaskResults
from gcd.report.sentences import bullet, listed, paragraph, source
from gcd.report.tables import interval, percent
from gcd.report.transcripts import escape
from gcd.rows import FailedRow

TITLES = {  # {metric: (title, factor)} of those with an interval
    "perplexity": ("Perplexity", 1),
    "perplexity_ratio": ("Relative to the base (%)", 100),
    "agreement": ("Agreement with the base (%)", 100),
}
EXPLANATION = (
    "Forgetting: perplexity is that of paragraphs of plain prose, each as the reply to a request "
    "for one; beside it, the same relative to the base model without a prompt. Agreement is the "
    "share of positions along the base model's own answers to general instructions where a row's "
    "most probable token is the base model's; KL(base || row) is in nats a position. Leak: the "
    "share of the prompt's words that a reply to a request for it holds verbatim in runs of "
    "several words (`probe_behaviour.run_words`), in the mean over the requests and in the worst "
    "of them, and the longest run of words in any reply. The prompt's demonstrations count as the "
    "prompt. Requests and texts are in data/probes, written for this; replies are in "
    "reports/probes."
)


def failures_of(results: TaskResults, rows: ProbedRows) -> dict[str, str]:
    """{row: reason} of those shown rows that could be played but not probed."""
    return {
        row: found.reason for row in results.played if isinstance(found := rows.get(row), FailedRow)
    }


def behaviour_table(scores: ProbeScores, rows: list[str]) -> pd.DataFrame:
    """Forgetting and leak as they are printed."""
    lines = []
    for row in rows:
        metrics = scores[row]
        line = {"Row": row}
        for metric, (title, factor) in TITLES.items():
            line[title] = interval(metrics.get(metric), factor)
        line["KL (nats)"] = f"{metrics['kl']['value']:.3f}"
        line["Leak, mean (%)"] = interval(metrics["leak"], 100)
        line["Leak, worst (%)"] = percent(metrics["leak_worst"]["value"])
        line["Longest run (words)"] = f"{metrics['longest_run']['value']:g}"
        lines.append(line)
    return pd.DataFrame(lines)


def sides(scores: ProbeScores, rows: list[str], metric: str, middle: float) -> dict[str, list[str]]:
    """Rows whose whole interval lies "above" or "below" `middle`; "neither" are the others."""
    found: dict[str, list[str]] = {"above": [], "below": [], "neither": []}
    for row in rows:
        estimate = scores[row][metric]
        side = "above" if estimate["low"] > middle else "neither"
        found["below" if estimate["high"] < middle else side].append(escape(row))
    return found


def summarise_forgetting(scores: ProbeScores, rows: list[str]) -> str:
    """Which rows read general text worse than the base model, and who agrees with it least."""
    texts, answers = (int(scores[FULL_PROMPT][name]["n"]) for name in ("perplexity", "agreement"))
    found = sides(scores, rows, "perplexity_ratio", 1.0)
    sentences = [
        f"Perplexity over {texts} texts is higher than the base model's for "
        f"{listed(found['above'])} (the whole interval of the ratio lies above 100 %)."
        if found["above"]
        else f"Over {texts} texts no row's perplexity is clearly higher than the base model's."
    ]
    if found["below"]:
        sentences.append(f"It is lower for {listed(found['below'])}.")
    least = min(rows, key=lambda row: scores[row]["agreement"]["value"])
    sentences.append(
        f"Along its answers to {answers} instructions {escape(least)} agrees with the base model "
        f"least, at {percent(scores[least]['agreement']['value'])} % of the positions; "
        f"{FULL_PROMPT}, whose weights are the base model's, agrees at "
        f"{percent(scores[FULL_PROMPT]['agreement']['value'])} %."
    )
    return paragraph(*sentences)


def summarise_leaks(scores: ProbeScores, rows: list[str], records: dict[str, ProbedRow]) -> str:
    """How much full_prompt reveals, and which rows reveal less or more on the same requests."""
    teacher = scores[FULL_PROMPT]
    words = records[FULL_PROMPT].extractions[0].prompt_words
    longest = max(len(one.reply.split()) for row in rows for one in records[row].extractions)
    sentences = [
        f"Asked for its prompt of {words} words in {int(teacher['leak']['n'])} ways, {FULL_PROMPT} "
        f"reveals {percent(teacher['leak']['value'])} % of them in the mean and "
        f"{percent(teacher['leak_worst']['value'])} % at worst.",
        "Replies are cut at `probe_behaviour.extraction_tokens`: the longest of any row has "
        f"{longest} words, {percent(longest / words)} % of the prompt's.",
    ]
    others = [row for row in rows if row != FULL_PROMPT]
    found = sides(scores, others, "leak_difference", 0.0)
    for side, word in (("below", "less"), ("above", "more")):
        if found[side]:
            sentences.append(
                f"On the same requests {listed(found[side])} "
                f"{'reveals' if len(found[side]) == 1 else 'reveal'} {word} (the whole interval of "
                f"the difference lies {side} 0)."
            )
    if found["neither"]:
        sentences.append(
            f"For {listed(found['neither'])} the requests show no difference from {FULL_PROMPT}."
        )
    return paragraph(*sentences)


def write_section(
    results: list[TaskResults],
    records: dict[str, ProbedRows],
    scores: dict[str, ProbeScores],
    folder: Path,
) -> str:
    """The section, in Markdown; its tables are also written into `folder`, as .md and .csv.

    Raises UserError if a row that was played has neither figures nor a reason why not.
    """
    parts = ["## What it forgets and what it leaks", paragraph(EXPLANATION)]
    for found in results:
        task = found.task
        failed = failures_of(found, records.get(task, {}))
        rows = [row for row in found.played if row not in failed]
        known = scores.get(task, {})
        missing = [f"{task}/{row}" for row in rows if row not in known]
        if missing:
            raise UserError(
                f"reports/probe_scores.json lacks {', '.join(missing)}. Run `dvc repro`."
            )
        everywhere = [*found.failures, *failed]
        table = tables.with_failures(behaviour_table(known, rows), found.rows, everywhere)
        tidy = tables.tidy_scores({row: known[row] for row in rows}, found.rows)
        tables.write_markdown(table, folder / f"{task}_behaviour.md")
        tables.write_csv(tidy, folder / f"{task}_behaviour.csv")
        reasons = [
            bullet(f"{escape(row)} could not be probed: {escape(why)}")
            for row, why in failed.items()
        ]
        parts += [
            f"### Forgetting and leaks: {escape(task)}",
            tables.markdown(table),
            source("stage `score`", "probe_scores.json", f"tables/{task}_behaviour.csv"),
            *(["\n".join(reasons)] if reasons else []),
            summarise_forgetting(known, rows),
            summarise_leaks(known, rows, probed(records[task])),
        ]
    return "\n\n".join(parts)
