"""Which rows differ: paired tests on the same samples, corrected for their number. Pure functions.

Two rows played the same samples and answered the same teacher states, so their difference is taken
case by case. p is that of the permutation test which flips the signs of these differences
(two-sided; exact where there are few cases, else from seeded draws); on shares of yes and no it is
McNemar's test. The p-values of one family (one row against all others, one task, one metric) are
corrected by Holm's method. The interval of a difference is the paired bootstrap's, uncorrected.

Cases: mean_score one a sample; valid_action_rate the share of valid turns of an episode, none of
them valid in one without turns; teacher_agreement one a state in which the teacher had an action.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from gcd.core.records import FULL_PROMPT
from gcd.rows import Row
from gcd.scoring import DIGITS, Bootstrap

METRICS = ("mean_score", "valid_action_rate", "teacher_agreement")
BOUNDS = (FULL_PROMPT, "no_prompt")

Values = NDArray[np.float64]
Compared = dict[str, dict[str, Any]]  # of one task: {metric: {"best": …, "chosen": …}}


@dataclass(frozen=True)
class Comparison:
    """The row's mean minus the other's, its interval, and p before and after Holm's correction."""

    difference: float
    low: float
    high: float
    p: float
    corrected: float

    def rounded(self) -> dict[str, float]:
        """As in comparisons.json."""
        return {name: round(value, DIGITS) for name, value in vars(self).items()}


def cases(row: Row, metric: str) -> Values:
    """One value a case, in the order of the samples' (or the states') names."""
    if metric == "teacher_agreement":
        found = {
            str(reply.index): float(reply.action == reply.teacher_action)
            for reply in row.state_replies
            if reply.teacher_action is not None
        }
    else:
        found = {
            episode.index: episode.score
            if metric == "mean_score"
            else float(np.mean([turn.action is not None for turn in episode.turns] or [False]))
            for episode in row.episodes
        }
    return np.array([found[name] for name in sorted(found)], dtype=np.float64)


def paired_p(ours: Values, others: Values, draws: int, seed: int) -> float:
    """Two-sided p of the sign-flip test of the mean difference; 1 if none differs, or of one case.

    Exact if there are at most `draws` ways to flip, else from `draws` draws: at least
    1 / (draws + 1).
    """
    if len(ours) < 2 or (ours == others).all():
        return 1.0
    found = permutation_test(
        (ours, others),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Holm 1979): the k-th smallest of m times m - k + 1, monotone."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = largest
    return corrected


def compare(
    rows: Mapping[str, Row], chosen: str, metric: str, bootstrap: Bootstrap, draws: int
) -> dict[str, Comparison]:
    """Row `chosen` against each other row; nothing where the metric has no cases."""
    values = {name: cases(row, metric) for name, row in rows.items()}
    if not len(values[chosen]):
        return {}
    others = [name for name in rows if name != chosen]
    p = {name: paired_p(values[chosen], values[name], draws, bootstrap.seed) for name in others}
    corrected = holm(p)
    found = {}
    for name in others:
        difference = values[chosen] - values[name]
        interval = bootstrap.ratio(difference, np.ones(len(difference)))
        assert interval is not None  # a mean of at least one case
        found[name] = Comparison(
            interval.value, interval.low, interval.high, p[name], corrected[name]
        )
    return found


def best_row(rows: Mapping[str, Row], metric: str) -> str | None:
    """The row with the highest mean that is no bound; None if two share it, or without cases."""
    means = {
        name: cases(row, metric).mean()
        for name, row in rows.items()
        if name not in BOUNDS and len(cases(row, metric))
    }
    highest = [name for name, mean in means.items() if mean == max(means.values())]
    return highest[0] if len(highest) == 1 else None


def compare_tasks(
    tasks: Mapping[str, Mapping[str, Row]], chosen: str, bootstrap: Bootstrap, draws: int
) -> dict[str, Compared]:
    """{task: {metric: {"best": …, "chosen": …}}} as in comparisons.json.

    "best" is {"row": name, "against": {row: comparison}}: the best row that is no bound against the
    others that are none; absent where there is no single best one, or no other. "chosen" is the
    same of the row `chosen` against all, absent where the task has no such row.
    """
    found: dict[str, Compared] = {}
    for task, rows in tasks.items():
        free = {name: row for name, row in rows.items() if name not in BOUNDS}
        for metric in METRICS:
            families = {}
            best = best_row(rows, metric)
            if best and len(free) > 1:
                families["best"] = (best, compare(free, best, metric, bootstrap, draws))
            if chosen in rows:
                families["chosen"] = (chosen, compare(rows, chosen, metric, bootstrap, draws))
            found.setdefault(task, {})[metric] = {
                family: {
                    "row": row,
                    "against": {name: one.rounded() for name, one in against.items()},
                }
                for family, (row, against) in families.items()
                if against
            }
    return found
