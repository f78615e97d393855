"""The report's first screen: the question, the answer, and what it holds for, from the records."""

from gcd.core.records import FULL_PROMPT
from gcd.cost import ModelRecord
from gcd.report import cost_tables, tables
from gcd.report.results import TaskResults
from gcd.report.sentences import RELATIVE, bullet, listed, paragraph
from gcd.report.tables import VALID, percent
from gcd.report.transcripts import escape

QUESTION = paragraph(
    "**The question.** An agent's fixed, long prompt is moved into a small adapter (Generative "
    "Context Distillation, arXiv 2411.15927). Does the model then act without the prompt as it did "
    "with it, and at what price? The row full_prompt is the base model with its prompt: the "
    "teacher, and the upper bound. no_prompt is the base model without it: the lower bound."
)


def answer(results: TaskResults, chosen: str) -> str:
    """What one task says about row `chosen`: one bullet."""
    task = escape(results.task.replace("_", " "))
    if chosen not in results.played:
        return bullet(f"{task}: {escape(chosen)} was not played.")
    ours, teacher = results.scores[chosen], results.scores[FULL_PROMPT]
    relative = ours.get(RELATIVE)
    kept = (
        f"keeps {tables.interval(relative, 100)} % of the prompted teacher's score"
        if relative
        else "cannot be measured by score, because the prompted teacher solves nothing"
    )
    sentences = [f"{task}: {escape(chosen)} {kept}."]
    if VALID in ours and VALID in teacher:
        base = results.scores.get("no_prompt", {}).get(VALID)
        without = f" and {percent(base['value'])} % for the model without a prompt" if base else ""
        sentences.append(
            f"{tables.interval(ours[VALID], 100)} % of its turns hold a valid action, against "
            f"{percent(teacher[VALID]['value'])} % for the teacher{without}."
        )
    if chosen in cost_tables.priced(results.costs, results.played):
        share = results.costs[chosen]["flops_relative_on_teacher_episodes"]
        sentences.append(
            f"It needs {percent(share['recompute'])} % of the teacher's FLOPs where the prompt is "
            f"read in every turn, {percent(share['session_cache'])} % where it is read once an "
            f"episode, and {percent(share['prefix_cache'])} % where its cache is shared by all."
        )
    return bullet(" ".join(sentences))


def when_not(results: list[TaskResults], chosen: str) -> str:
    """How often a prompt must be used for row `chosen` to pay; empty where nothing is priced."""
    counted: dict[str, list[str]] = {"recompute": [], "prefix_cache": []}
    for found in results:
        if chosen in cost_tables.priced(found.costs, found.played):
            for regime, said in counted.items():
                sessions = cost_tables.break_even(found.costs, chosen, regime)
                count = "never" if sessions is None else f"after {sessions:,} sessions"
                said.append(f"{count} ({escape(found.task.replace('_', ' '))})")
    if not counted["recompute"]:
        return ""
    return paragraph(
        f"**When it does not pay.** In FLOPs, {escape(chosen)} has paid for its data and training "
        f"{listed(counted['recompute'])} where the prompt is read in every turn, and "
        f"{listed(counted['prefix_cache'])} where its cache is shared by all. A prompt that is "
        "used less often, or changed before, is cheaper left where it is."
    )


def holds_for(results: list[TaskResults], model: ModelRecord, confidence: float) -> str:
    """What the answer holds for."""
    counts = ", ".join(
        f"{int(found.scores[FULL_PROMPT]['mean_score']['n'])} in {escape(found.task)}"
        for found in results
    )
    return paragraph(
        f"**What it holds for.** A base model of {model.parameters / 1e6:,.3g} million parameters, "
        f"one training run a row, greedy play, test samples: {counts}. Brackets are "
        f"{100 * confidence:g} % intervals. What these numbers do not say is at the end."
    )
