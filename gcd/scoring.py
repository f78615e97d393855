"""From records to metrics with intervals. Pure functions: no model, no files, no clock.

Metrics of one row of one task:

success_rate            share of samples with score 1 (a graded score below 1 is no success).
                        "unknown" and "task error" are failures and stay in the denominator.
success_rate_<tier>     the same over the samples whose group "tier" has that value.
mean_score              the benchmark's own metric: success rate of OS interaction, step success
                        rate of web browsing, reward of web shopping.
relative_to_full_prompt mean score of the row over mean score of `full_prompt`, same samples.
valid_action_rate       share of turns that held an action; turns of one episode go together.
teacher_agreement       share of teacher-visited states where the row's action equals the
                        teacher's (kind and content); states in which the teacher itself had no
                        valid action are left out.
mean_turns              turns per episode, over the episodes that had a turn.
prompt_recall           edit similarity of the prompt and what the row writes when asked for it,
                        mean over the requests (`gcd.acting.recall`); rouge_l is the same by words.
<measure>               mean of a part of the score that the task measures itself, e.g. action_f1
                        (`Episode.measures`); episodes without it (broken samples) count 0.

A metric without cases (no such tier, no turns, no states, a teacher that scores 0) is left out of
the row: neither 0 nor NaN would be true.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gcd.core.records import FULL_PROMPT, Episode, StateReply
from gcd.rows import Row

DIGITS = 4  # of everything in scores.json, rounded once, at the end


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval [low, high], over `n` cases."""

    value: float
    low: float
    high: float
    n: int

    def rounded(self) -> dict[str, float]:
        """As in scores.json."""
        return {
            "value": round(self.value, DIGITS),
            "low": round(self.low, DIGITS),
            "high": round(self.high, DIGITS),
            "n": self.n,
        }


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap: `samples` resamples, drawn from `seed`, at level `confidence`.

    Every call starts from the same seed, so rows with the same samples are resampled alike and a
    new row never moves the interval of another.
    """

    confidence: float
    samples: int
    seed: int

    def ratio(
        self, numerator: NDArray[np.float64], denominator: NDArray[np.float64]
    ) -> Estimate | None:
        """sum(numerator) / sum(denominator), resampling both together by position.

        Position = what was drawn independently: a sample, or an episode with all its turns. With
        a denominator of ones this is the plain mean. Resamples whose denominator is 0 have no
        ratio and are dropped: the interval is conditional on a denominator above 0. None if the
        denominator itself is 0, or in every resample.
        """
        n = len(numerator)
        if n == 0 or denominator.sum() == 0:
            return None
        drawn = np.random.default_rng(self.seed).integers(n, size=(self.samples, n))
        below = denominator[drawn].sum(axis=1)
        above = numerator[drawn].sum(axis=1)
        kept = below > 0
        if not kept.any():
            return None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(above[kept] / below[kept], [tail, 1 - tail])
        return Estimate(float(numerator.sum() / denominator.sum()), float(low), float(high), n)


def wilson(successes: int, n: int, confidence: float) -> Estimate | None:
    """Wilson's score interval of a share (Wilson 1927); None if there are no cases.

    Unlike p +- z sqrt(p (1 - p) / n) it stays inside [0, 1] and has a width at 0 and at n.
    """
    if n == 0:
        return None
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), n)


def succeeded(episode: Episode) -> bool:
    """Whether the sample was solved in full."""
    return episode.score >= 1.0


def success_rate(episodes: list[Episode], confidence: float) -> Estimate | None:
    """Share of solved samples, Wilson."""
    return wilson(sum(map(succeeded, episodes)), len(episodes), confidence)


def relative_score(
    episodes: list[Episode], reference: list[Episode], bootstrap: Bootstrap
) -> Estimate | None:
    """Mean score over the reference's mean score; both played the same samples."""
    reference_scores = {episode.index: episode.score for episode in reference}
    return bootstrap.ratio(
        np.array([episode.score for episode in episodes], dtype=np.float64),
        np.array([reference_scores[episode.index] for episode in episodes], dtype=np.float64),
    )


def mean(values: list[float], bootstrap: Bootstrap) -> Estimate | None:
    """The plain mean; of a single value the interval has no width."""
    return bootstrap.ratio(np.array(values, dtype=np.float64), np.ones(len(values)))


def mean_score(episodes: list[Episode], bootstrap: Bootstrap) -> Estimate | None:
    """Mean score of the samples."""
    return mean([episode.score for episode in episodes], bootstrap)


def valid_action_rate(episodes: list[Episode], bootstrap: Bootstrap) -> Estimate | None:
    """Share of turns with an action; `n` counts turns, the bootstrap draws whole episodes."""
    turns = [len(episode.turns) for episode in episodes]
    valid = [sum(turn.action is not None for turn in episode.turns) for episode in episodes]
    estimate = bootstrap.ratio(np.array(valid, dtype=np.float64), np.array(turns, dtype=np.float64))
    return estimate and Estimate(estimate.value, estimate.low, estimate.high, n=sum(turns))


def teacher_agreement(replies: list[StateReply], confidence: float) -> Estimate | None:
    """Share of teacher-visited states answered with the teacher's action, Wilson."""
    usable = [reply for reply in replies if reply.teacher_action is not None]
    agreed = sum(reply.action == reply.teacher_action for reply in usable)
    return wilson(agreed, len(usable), confidence)


def mean_turns(episodes: list[Episode], bootstrap: Bootstrap) -> Estimate | None:
    """Turns per episode; an episode that never started says nothing about the agent."""
    return mean([float(len(episode.turns)) for episode in episodes if episode.turns], bootstrap)


def measures(episodes: list[Episode], bootstrap: Bootstrap) -> dict[str, Estimate | None]:
    """The mean of each measure over all episodes."""
    names = sorted({name for episode in episodes for name in episode.measures})
    return {
        name: mean([episode.measures.get(name, 0.0) for episode in episodes], bootstrap)
        for name in names
    }


def score_row(row: Row, full_prompt: Row, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """All metrics of one row that have cases."""
    confidence = bootstrap.confidence
    metrics = {
        "success_rate": success_rate(row.episodes, confidence),
        "mean_score": mean_score(row.episodes, bootstrap),
        "relative_to_full_prompt": relative_score(row.episodes, full_prompt.episodes, bootstrap),
        "valid_action_rate": valid_action_rate(row.episodes, bootstrap),
        "teacher_agreement": teacher_agreement(row.state_replies, confidence),
        "mean_turns": mean_turns(row.episodes, bootstrap),
        "prompt_recall": mean([recall.edit_similarity for recall in row.recall], bootstrap),
        "rouge_l": mean([recall.rouge_l for recall in row.recall], bootstrap),
        **measures(row.episodes, bootstrap),
    }
    tiers = {episode.groups["tier"] for episode in row.episodes if "tier" in episode.groups}
    for tier in tiers:
        members = [episode for episode in row.episodes if episode.groups.get("tier") == tier]
        metrics[f"success_rate_{tier}"] = success_rate(members, confidence)
    return {name: estimate for name, estimate in metrics.items() if estimate is not None}


def score_tasks(
    tasks: dict[str, dict[str, Row]], bootstrap: Bootstrap
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """{task: {row: {metric: {"value", "low", "high", "n"}}}}, rounded, as in scores.json."""
    return {
        task: {
            name: {
                metric: estimate.rounded()
                for metric, estimate in score_row(row, rows[FULL_PROMPT], bootstrap).items()
            }
            for name, row in rows.items()
        }
        for task, rows in tasks.items()
    }


def short_metrics(
    scores: dict[str, dict[str, dict[str, dict[str, float]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """{task: {row: {metric: percent}}}: the few numbers that experiments are compared by."""
    names = {"score": "mean_score", "valid": "valid_action_rate", "agree": "teacher_agreement"}
    return {
        task: {
            row: {
                short: round(100 * metrics[name]["value"], 1)
                for short, name in names.items()
                if name in metrics
            }
            for row, metrics in rows.items()
        }
        for task, rows in scores.items()
    }
