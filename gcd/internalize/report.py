"""exports/<name>/report.md: the verdict, its reasons, and what it stands on.

Every number is explained in docs/internalize.md. Replies are shown as literal text.
"""

import pandas as pd

from gcd.core.records import FULL_PROMPT
from gcd.internalize.agreement import FIDELITY, clearly_better
from gcd.internalize.drift_report import render_drift
from gcd.internalize.outcome import Estimates, Outcome, Reply, Savings
from gcd.internalize.run_params import WARM_STARTED
from gcd.internalize.settings import Settings
from gcd.internalize.showing import TITLES, shown, threshold
from gcd.internalize.verdict import BASELINE
from gcd.report.cost_tables import REGIME_NAMES, flops
from gcd.report.sentences import bullet, listed, paragraph
from gcd.report.tables import FAILED, interval, markdown, percent
from gcd.report.transcripts import escape, fence

# The rows that the student is compared with: no prompt at all, and SFT without PG.
COMPARED = (BASELINE, "seqkd")
MARKS = {
    "good": "keep",
    "care": "with care",
    "bad": "do not use",
    "not measured": "not measured",
}


def render_verdict(outcome: Outcome) -> list[str]:
    """The first screen."""
    verdict = outcome.verdict
    lines = [
        {
            "Measure": TITLES[one.measure],
            "Value": shown(one.measure, one.estimate),
            "Keep": threshold(one.measure, one.keep),
            "With care": threshold(one.measure, one.care),
            "Says": MARKS[one.mark] + (f": {one.note}" if one.note else ""),
        }
        for one in verdict.judged
    ]
    others = [TITLES[one.measure] for one in verdict.judged if one.mark in ("bad", "care")]
    why = f" Not good enough to keep as it is: {listed(others)}." if others else ""
    return [
        f"# {escape(outcome.name)}: {verdict.word}",
        "## Verdict",
        paragraph(
            f"**{verdict.word.capitalize()}**: the adapter {escape(outcome.student)} in place of a "
            f"prompt of {outcome.prompt_tokens:,} tokens.{why}"
        ),
        "\n".join(bullet(escape(text)) for text in verdict.further),
        markdown(pd.DataFrame(lines)),
        paragraph(
            "`keep` asks the whole interval to be at least as good as its threshold; a value worse "
            "than the second threshold means `do not use`; anything between is `with care`. The "
            "worst measure decides. Thresholds are in internalize.yaml."
        )
        if lines
        else "",
    ]


def compare_rows(
    student: str, other: str, scores: dict[str, Estimates], measures: list[str]
) -> str:
    """In which measures the student is clearly better than another row, and in which not."""
    ours, theirs = scores[student], scores[other]
    measures = [name for name in measures if name in ours and name in theirs]
    better = [name for name in measures if clearly_better(name, ours[name], theirs[name])]
    worse = [name for name in measures if clearly_better(name, theirs[name], ours[name])]
    rest = [TITLES[name] for name in measures if name not in better]
    text = (
        f"{escape(student)} is better than {escape(other)} with intervals that do not overlap in "
        f"{len(better)} of {len(measures)} measures of fidelity"
    )
    text += f"; not in {listed(rest)}." if rest else "."
    if worse:
        text += f" It is worse, as clearly, in {listed([TITLES[name] for name in worse])}."
    return text


def cell(outcome: Outcome, row: str, measure: str) -> str:
    """A row's estimate. Of the probes' only the perplexity: their `kl` is to the base model."""
    if row not in outcome.scores:
        return FAILED
    found = outcome.probes.get(row, {}) if measure == "perplexity_ratio" else outcome.scores[row]
    return shown(measure, found.get(measure))


def render_fidelity(outcome: Outcome) -> list[str]:
    """Every row against the prompted teacher."""
    measures = [name for name in FIDELITY if any(name in row for row in outcome.scores.values())]
    lines = [
        {"Measure": TITLES[name]} | {row: cell(outcome, row, name) for row in outcome.methods}
        for name in [*measures, "perplexity_ratio"]
    ]
    sentences = [
        compare_rows(outcome.student, other, outcome.scores, measures)
        for other in COMPARED
        if other != outcome.student and {other, outcome.student} <= outcome.scores.keys()
    ]
    failed = [
        bullet(f"{escape(row)} failed: {escape(why)}") for row, why in outcome.failures.items()
    ]
    return [
        "## Fidelity to the prompted teacher",
        paragraph(
            f"{outcome.held_out} held-out inputs that the model made up and no training saw, and "
            f"{outcome.own_inputs} of the user's own. {FULL_PROMPT} is the base model behind the "
            "prompt, the teacher; its own column shows what the measures can reach. Brackets are "
            f"{100 * outcome.confidence:g} % intervals over inputs."
        ),
        markdown(pd.DataFrame(lines)),
        paragraph(*sentences) if sentences else "",
        "\n".join(failed),
        *render_sources(outcome, measures),
    ]


def render_sources(outcome: Outcome, measures: list[str]) -> list[str]:
    """The student on the user's own inputs beside those that the model made up."""
    if not outcome.by_source:
        return []
    own, made_up = outcome.by_source["user"], outcome.by_source["synthesised"]
    lines = [
        {
            f"Measure, {outcome.student}": TITLES[name],
            "The user's own": shown(name, own.get(name)),
            "Made up": shown(name, made_up.get(name)),
        }
        for name in measures
    ]
    return [
        markdown(pd.DataFrame(lines)),
        paragraph(
            "The user's own inputs are the only ones that no model wrote. Where the student is "
            "clearly worse on them, what it was trained on is not like what users write."
        ),
    ]


def render_savings(savings: Savings) -> list[str]:
    """What the prompt costs and what the adapter saves, in the three regimes."""
    lines = [
        {
            "Caching": REGIME_NAMES[one.regime],
            "GFLOP a session, prompt": flops(one.flops_teacher),
            "GFLOP a session, adapter": flops(one.flops_student),
            "Adapter (%)": percent(one.flops_share),
            "Tokens read, prompt": f"{one.read_teacher:,}",
            "Tokens read, adapter": f"{one.read_student:,}",
            "Money a day, prompt": f"{one.money_teacher:,.2f}",
            "Saved a day": f"{one.money_teacher - one.money_student:,.2f}",
            "Break-even (days)": "never" if one.days is None else f"{one.days:,.3g}",
        }
        for one in savings.regimes
    ]
    return [
        "## What it saves",
        paragraph(
            f"At {savings.sessions_per_day:,} sessions a day of {savings.turns} turns each, with "
            f"{savings.message_tokens} tokens a message and {savings.reply_tokens} a reply, as the "
            "teacher's are in the mean."
        ),
        markdown(pd.DataFrame(lines)),
        paragraph(
            "recompute: every turn reads the prompt and the conversation anew; session cache: each "
            "once a session; prefix cache: the prompt is shared by all sessions and costs none of "
            "them anything. Money is tokens at the prices of internalize.yaml, with cached tokens "
            "free. Break-even: when the FLOPs that are saved have made up for those of the data "
            f"({flops(savings.data_flops)} GFLOP) and the training "
            f"({flops(savings.training_flops)} GFLOP); it is no statement about money."
        ),
    ]


def render_examples(outcome: Outcome, replies: list[Reply], count: int) -> list[str]:
    """The inputs where student and teacher differ most."""
    ordered = sorted(replies, key=lambda one: (-one.kl, one.index))[:count]
    parts = ["## Where student and teacher differ most"]
    if not ordered:
        return [*parts, "The student failed, so there is nothing to compare."]
    parts.append(
        paragraph(
            f"The {len(ordered)} of {len(replies)} inputs with the highest KL a position along the "
            "teacher's reply. All replies are in replies.jsonl."
        )
    )
    for one in ordered:
        parts += [
            f"### {escape(one.index)}: {one.kl:.2f} nats",
            fence(one.input),
            f"{FULL_PROMPT}:",
            fence(one.replies[FULL_PROMPT]),
            f"{escape(outcome.student)}:",
            fence(one.replies[outcome.student]),
        ]
    return parts


def render_leak(outcome: Outcome) -> list[str]:
    """What each row gives away of the prompt."""
    lines = [
        {
            "Row": row,
            "Leak, mean (%)": interval(found.get("leak"), 100),
            "Leak, worst (%)": percent(found["leak_worst"]["value"]),
            "Longest run (words)": f"{found['longest_run']['value']:g}",
        }
        for row, found in outcome.probes.items()
    ]
    return [
        "## What it gives away of the prompt",
        markdown(pd.DataFrame(lines)),
        paragraph(
            "Users ask for the prompt in several ways (data/probes/extraction_requests.jsonl). "
            "Leak is the share of the prompt's words that a reply holds verbatim, in runs of "
            "several (`probe_behaviour.run_words`), its demonstrations among them. An adapter "
            "trained to write down its prompt can be asked for it: a prompt that must stay secret "
            "should not be internalised. A request that finds nothing does not show that nothing "
            "can be found."
        ),
    ]


def render_data(outcome: Outcome) -> list[str]:
    """What was synthesised, and where all of it can be found again."""
    lines = []
    for name, counts in outcome.data.items():
        reasons = [f"{reason}: {count}" for reason, count in sorted(counts["rejected"].items())]
        lines.append(
            {
                "Data": name.replace("_", " "),
                "Kept": counts["kept"],
                "Rejected": sum(counts["rejected"].values()),
                "Reasons": "; ".join(reasons) or "none",
            }
        )
    facts = [
        f"Prompt: {escape(outcome.prompt_file)}, SHA-256 {outcome.prompt_sha256}, "
        f"{outcome.prompt_tokens:,} tokens.",
        f"Base model: {escape(str(outcome.model['source']))} "
        f"{escape(str(outcome.model.get('id') or outcome.model.get('package') or ''))}, "
        f"{outcome.model['parameters']:,} parameters.",
        f"Seed {outcome.seed}; commit {outcome.commit}; DVC experiment {outcome.experiment}.",
        f"Format: {outcome.format or 'none given'}.",
    ]
    return [
        "## Data and provenance",
        markdown(pd.DataFrame(lines)),
        "\n".join(bullet(fact) for fact in facts),
    ]


def render_limits(outcome: Outcome) -> list[str]:
    """What the numbers do not say."""
    points = [
        "Fidelity is to the prompted teacher, right or wrong: nobody judged whether the teacher's "
        "replies are good.",
        "Held-out inputs are the model's own inventions. Where your users write otherwise, only "
        f"your own inputs say so, and here they are {outcome.own_inputs}.",
        "One turn was measured. How the student holds up later in a conversation was not.",
        "One training run with one seed. Intervals are over inputs, not over runs.",
        "Costs are counted from tokens, not timed, and not billed.",
    ]
    if outcome.student in WARM_STARTED.values():
        points.append(
            f"{outcome.student} went on from the adapter of the version before, and seqkd began "
            "anew: a difference between them is one of the longer training, too."
        )
    return ["## What these numbers do not say", "\n".join(bullet(point) for point in points)]


def render(outcome: Outcome, replies: list[Reply], settings: Settings) -> str:
    """The report in Markdown."""
    parts = render_verdict(outcome) + render_fidelity(outcome)
    if outcome.savings is not None:
        parts += render_savings(outcome.savings)
    parts += render_examples(outcome, replies, settings.report.examples) + render_leak(outcome)
    if outcome.drift is not None:
        parts += render_drift(outcome, outcome.drift)
    parts += render_data(outcome) + render_limits(outcome)
    return "\n\n".join(part for part in parts if part) + "\n"
