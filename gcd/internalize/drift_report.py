"""The report's section on what changed since the version before."""

from typing import Any

import pandas as pd

from gcd.core.records import FULL_PROMPT
from gcd.internalize.agreement import FIDELITY
from gcd.internalize.outcome import Drift, Estimates, Outcome
from gcd.internalize.showing import TITLES, shown
from gcd.report.sentences import listed, paragraph
from gcd.report.tables import markdown
from gcd.report.transcripts import escape


def drift_line(title: str, found: Estimates) -> dict[str, Any]:
    """One line of the drift's table."""
    names = ("exact_agreement", "semantic_agreement", "format_validity", "length_ratio")
    return {"Between the versions of": title} | {
        TITLES[name]: shown(name, found.get(name)) for name in names
    }


def render_drift(outcome: Outcome, drift: Drift) -> list[str]:
    """What changed since the version before."""
    same = [
        name for name, flag in (("prompt", drift.same_prompt), ("model", drift.same_model)) if flag
    ]
    now = outcome.scores[outcome.student]
    lines = [
        {
            "Measure against its own teacher": TITLES[name],
            "Before": shown(name, drift.before.get(name)),
            "Now": shown(name, now.get(name)),
        }
        for name in FIDELITY
        if name in now or name in drift.before
    ]
    return [
        f"## Drift since {escape(drift.previous)}",
        paragraph(
            f"The prompt had {drift.prompt_tokens:,} tokens and has {outcome.prompt_tokens:,}."
            + (f" The {listed(same)} did not change." if same else "")
            + f" Both versions replied to {drift.inputs} inputs that the version before was tested "
            f"on; {drift.left_out} more were left out, as this one was trained on them."
        ),
        markdown(
            pd.DataFrame(
                [
                    drift_line(FULL_PROMPT, drift.teacher),
                    drift_line(outcome.student, drift.student),
                ]
            )
        ),
        paragraph(
            "The first line is what the edit of the prompt asks for, the second what came of it: a "
            "student that changed much more than its teacher drifted for other reasons (other "
            "data, other order). Length is of characters, now over before."
        ),
        markdown(pd.DataFrame(lines)),
    ]
