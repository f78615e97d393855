"""The report's sentences: what the numbers say, and what they do not say, computed from them."""

import textwrap

from gcd.core.records import FULL_PROMPT
from gcd.cost import REGIMES, ModelRecord
from gcd.report import cost_tables
from gcd.report.results import TaskResults
from gcd.report.tables import SUCCESS, VALID, percent
from gcd.report.transcripts import escape

RELATIVE = "relative_to_full_prompt"
RECALL = "prompt_recall"


def paragraph(*sentences: str) -> str:
    """One Markdown paragraph, wrapped."""
    return textwrap.fill(" ".join(sentences), 100, break_long_words=False, break_on_hyphens=False)


def bullet(text: str) -> str:
    """One item of a Markdown list, wrapped."""
    return textwrap.fill(
        f"- {text}", 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def source(by: str, *files: str) -> str:
    """The line under a table: which files of reports/ hold its numbers, and what wrote them."""
    links = ", ".join(f"[{file}]({file})" for file in files)
    return f"*Source: {links}; {by}.*"


def listed(items: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def summarise(results: TaskResults) -> str:
    """The task's results in sentences."""
    scores = results.scores
    samples = int(scores[FULL_PROMPT][SUCCESS]["n"])
    sentences = [f"{samples} test samples."]
    others = [row for row in results.played if row != FULL_PROMPT and RELATIVE in scores[row]]
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


def summarise_recall(results: TaskResults) -> str:
    """How much of the prompt the rows write down when asked; nothing if none was asked."""
    asked = {row: results.scores[row] for row in results.played if RECALL in results.scores[row]}
    if not asked:
        return ""
    best = max(metrics[RECALL]["value"] for metrics in asked.values())
    rows = [escape(row) for row, metrics in asked.items() if metrics[RECALL]["value"] == best]
    replies = max(int(metrics[RECALL]["n"]) for metrics in asked.values())
    return paragraph(
        "Prompt recall is how much of the prompt a row writes down when it is asked for it as in "
        "PG training: the edit similarity of characters, and ROUGE-L of words, between the "
        "beginning of the prompt and of its answer (`run_episodes.recall_tokens`), greedily, over "
        f"{replies} {'request' if replies == 1 else 'requests'}. "
        f"It is highest for {listed(rows)}, {percent(best)} %."
    )


def summarise_trouble(results: TaskResults) -> str:
    """Rows that failed, with their reasons, and rows that never acted: one bullet each."""
    silent = [
        f"{escape(row)} produced no valid action."
        for row in results.played
        if VALID not in results.scores[row] or results.scores[row][VALID]["value"] == 0
    ]
    failed = [f"{escape(row)} failed: {escape(why)}" for row, why in results.failures.items()]
    return "\n".join(bullet(sentence) for sentence in [*silent, *failed])


def summarise_costs(results: TaskResults) -> str:
    """What the rows need on the same turns as full_prompt; rows that need the same together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in cost_tables.priced(results.costs, results.played):
        if row != FULL_PROMPT:
            shares = results.costs[row]["flops_relative_on_teacher_episodes"]
            key = tuple(percent(shares[regime]) for regime in REGIMES)
            alike.setdefault(key, []).append(escape(row))
    if not alike:
        return ""
    lead = paragraph(
        "What they would need over the turns that full_prompt played, in percent of its FLOPs: if "
        "everything is recomputed, if a cache lives for an episode, and if full_prompt shares its "
        "prompt's cache across episodes."
    )
    lines = [bullet(f"{listed(rows)}: {listed(list(shares))} %") for shares, rows in alike.items()]
    return "\n\n".join([lead, "\n".join(lines)])


def summarise_break_even(results: TaskResults) -> str:
    """Where internalising pays and where it does not."""
    rows = [
        row
        for row in cost_tables.priced(results.costs, results.played)
        if results.costs[row]["training"]["flops"]
    ]
    if not rows:
        return ""
    sentences = []
    for regime in REGIMES:
        counts = {row: cost_tables.break_even(results.costs, row, regime) for row in rows}
        paying = {row: count for row, count in counts.items() if count is not None}
        never = (
            listed([escape(row) for row in rows if row not in paying])
            if (len(paying) < len(rows))
            else ""
        )
        name = cost_tables.REGIME_NAMES[regime]
        if paying:
            first = min(paying, key=lambda row: paying[row])
            last = max(paying, key=lambda row: paying[row])
            sentences.append(
                f"Against {name}, training pays after {paying[first]:,} ({escape(first)}) to "
                f"{paying[last]:,} sessions ({escape(last)})"
                + (f"; with {never} it never does." if never else ".")
            )
        else:
            sentences.append(f"Against {name}, no row ever pays.")
    return paragraph(
        *sentences,
        "So internalising does not pay for a prompt that is used less often than that, or that "
        "changes before; and the more of the prompt's cost a server already saves by sharing its "
        "cache, the later it pays.",
    )


def limits(results: list[TaskResults], model: ModelRecord, confidence: float) -> str:
    """What the numbers do not say."""
    counts = [
        f"{int(found.scores[FULL_PROMPT][SUCCESS]['n'])} ({escape(found.task)})"
        for found in results
    ]
    points = [
        f"The base model (`prepare_model.source`: {escape(model.source)}) has "
        f"{model.parameters / 1e6:,.3g} million parameters. How well a prompt can be "
        "internalised may differ with size; these numbers say nothing about other models.",
        "Each trained row was trained once, and every row played once, greedily, on "
        f"{listed(counts)} test samples. The intervals ({100 * confidence:g} %) cover the choice "
        "of samples, not that of the seed, of the generated data or of the settings. What a seed "
        "changes stands under Seeds, for the rows that were repeated.",
        "Intervals of single rates that overlap do not show that two rows are equal, nor does "
        "the order of two such rows show which is better.",
        "The interval of the ratio to full_prompt comes from resampling the samples in pairs; "
        "resamples in which full_prompt solves nothing have no ratio and are dropped.",
        "Samples of one family resemble each other, and so do teacher states of one episode; "
        "the intervals of success and agreement treat them as independent and are too narrow "
        "by an unknown amount.",
        "Teacher agreement asks for the teacher's exact action. Another action may be as good.",
        "FLOPs are counted from token counts, not timed. They leave out memory traffic and "
        "batching, so they are no latency, and the sessions after which training pays are counted "
        "in FLOPs, not in money.",
        "The FLOPs of a row's own episodes depend on how it plays: a row that gives up early is "
        "cheap. The columns over full_prompt's episodes hold the turns fixed.",
    ]
    return "\n".join(bullet(point) for point in points)
