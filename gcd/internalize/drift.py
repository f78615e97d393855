"""What changed between two versions of a prompt's student: on the same inputs, both their replies.

The inputs are those that the version before was tested on, less any that this one trained on.
"""

import numpy as np

from gcd.core.records import FULL_PROMPT
from gcd.internalize.agreement import Cosines
from gcd.internalize.formats import Format
from gcd.internalize.held_out import unseen
from gcd.internalize.outcome import Drift, Estimates, Outcome, Reply
from gcd.scoring import Bootstrap, Estimate, mean, wilson


def comparable(before: list[Reply], trained_on: list[str]) -> list[Reply]:
    """Those of the earlier inputs that this version did not train on."""
    kept = set(unseen([one.input for one in before], trained_on))
    return [one for one in before if one.input in kept]


def compare_replies(
    old: list[str],
    new: list[str],
    format: Format | None,
    cosines: Cosines | None,
    bootstrap: Bootstrap,
) -> Estimates:
    """How alike two versions' replies to the same inputs are, and how the new ones keep the format.

    `length_ratio` is of characters, new over old: the old ones were another tokenizer's, perhaps.
    """
    same = sum(one.strip() == other.strip() for one, other in zip(old, new, strict=True))
    found: dict[str, Estimate | None] = {
        "exact_agreement": wilson(same, len(old), bootstrap.confidence),
        "length_ratio": bootstrap.ratio(
            np.array([len(one) for one in new], dtype=np.float64),
            np.array([len(one) for one in old], dtype=np.float64),
        ),
    }
    if cosines is not None:
        found["semantic_agreement"] = mean(cosines(old, new), bootstrap)
    if format is not None:
        valid = sum(map(format.holds, new))
        found["format_validity"] = wilson(valid, len(new), bootstrap.confidence)
    return {name: one.rounded() for name, one in found.items() if one is not None}


def count_drift(
    previous: Outcome,
    kept: list[Reply],
    total: int,
    replies: dict[str, list[str]],
    *,
    student: str,
    same_prompt: bool,
    same_model: bool,
    format: Format | None,
    cosines: Cosines | None,
    bootstrap: Bootstrap,
) -> Drift:
    """The drift of student and teacher.

    Args:
        previous: the version before.
        kept: its replies to the comparable inputs, out of `total`.
        replies: this version's to the same inputs, of `student` and of the prompted teacher.
    """

    def of(row: str, before: str) -> Estimates:
        old = [one.replies[before] for one in kept]
        return compare_replies(old, replies[row], format, cosines, bootstrap)

    return Drift(
        previous=previous.name,
        same_prompt=same_prompt,
        same_model=same_model,
        prompt_tokens=previous.prompt_tokens,
        inputs=len(kept),
        left_out=total - len(kept),
        student=of(student, previous.student),
        teacher=of(FULL_PROMPT, FULL_PROMPT),
        before=previous.scores.get(previous.student, {}),
    )
