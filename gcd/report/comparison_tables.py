"""What comparisons.json says, as cells in bold, a table and sentences."""

import pandas as pd

from gcd.comparisons import Compared
from gcd.report.sentences import listed, paragraph
from gcd.report.tables import SUMMARY_TITLES
from gcd.report.transcripts import escape

COLUMNS = {  # of the results table
    "mean_score": "Mean score (%)",
    "valid_action_rate": "Valid actions (%)",
    "teacher_agreement": "Teacher agreement (%)",
}
NAMES = {
    "mean_score": "score",
    "valid_action_rate": "valid actions",
    "teacher_agreement": "teacher agreement",
}


def clear_best(compared: Compared, metric: str, confidence: float) -> str | None:
    """The best row that is no bound, if it differs from every other one after correction."""
    best = compared[metric].get("best")
    if best is None:
        return None
    clear = all(one["corrected"] < 1 - confidence for one in best["against"].values())
    return str(best["row"]) if clear else None


def bold_cells(compared: Compared, confidence: float) -> set[tuple[str, str]]:
    """(row, column) of what stands in bold in the results table."""
    clear = {column: clear_best(compared, metric, confidence) for metric, column in COLUMNS.items()}
    return {(row, column) for column, row in clear.items() if row}


def bold_summary(compared: Compared, confidence: float) -> set[tuple[str, str]]:
    """(row, one of SUMMARY_TITLES) of what stands in bold in the summary."""
    clear = {
        title: clear_best(compared, metric, confidence) for title, metric in SUMMARY_TITLES.items()
    }
    return {(row, title) for title, row in clear.items() if row}


def comparison_table(compared: Compared, rows: list[str]) -> pd.DataFrame:
    """The chosen row minus each other of `rows`, in points, with interval and corrected p."""
    lines: dict[str, dict[str, str]] = {}
    for metric, name in NAMES.items():
        chosen = compared[metric].get("chosen")
        against = chosen["against"] if chosen else {}
        for row in (row for row in rows if row in against):
            one = against[row]
            line = lines.setdefault(row, {"Against": row})
            value, low, high = (100 * one[key] for key in ("difference", "low", "high"))
            line[f"{name.capitalize()} (points)"] = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
            line[f"p, {name}"] = f"{one['corrected']:.3f}"
    return pd.DataFrame(list(lines.values())).fillna("n/a")


def summarise_best(compared: Compared, confidence: float) -> str:
    """Which rows are clearly best, metric by metric, and how that was tested."""
    clear = {metric: clear_best(compared, metric, confidence) for metric in NAMES}
    said = [f"{escape(row)} in {NAMES[metric]}" for metric, row in clear.items() if row]
    first = (
        f"Of the rows that are no bound, the best one is clearly so for {listed(said)}"
        if said
        else "Of the rows that are no bound, no one is clearly better than all others in score, "
        "valid actions or teacher agreement"
    )
    return paragraph(
        f"{first}: bold marks a row that differs from every other one in a paired permutation "
        "test (flipped signs; McNemar's test where a case is yes or no) on the same samples, "
        f"corrected by Holm's method, at {100 * (1 - confidence):g} %."
    )


def summarise_chosen(compared: Compared, confidence: float) -> str:
    """Which rows the chosen one differs from, metric by metric; nothing if it was not compared."""
    sentences = []
    for metric, name in NAMES.items():
        chosen = compared[metric].get("chosen")
        if not chosen:
            continue
        sides: dict[str, list[str]] = {"above": [], "below": []}
        for row, one in chosen["against"].items():
            if one["corrected"] < 1 - confidence:
                sides["above" if one["difference"] > 0 else "below"].append(escape(row))
        said = [f"{side} {listed(rows)}" for side, rows in sides.items() if rows]
        where = " and ".join(said) if said else "not clearly different from any other row"
        sentences.append(f"In {name}, {escape(str(chosen['row']))} is {where}.")
    return paragraph(*sentences) if sentences else ""
