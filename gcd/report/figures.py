"""The report's figures. The same numbers give the same bytes, as SVG and as PNG.

Marks differ in shape and in filling as well as in colour (Okabe and Ito's palette), so that they
can be told apart in grey and by colour-blind readers. The cycles have lengths without a common
divisor: 26 rows differ in grey, 182 with colours.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from gcd.cost import REGIMES

COLOURS = ["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h", "d"]
FILLINGS = [False, True]
LINES: list[Any] = ["-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1))]
REGIME_TITLES = {
    "recompute": "everything recomputed\nevery turn",
    "session_cache": "cache kept\nwithin an episode",
    "prefix_cache": "prompt's cache shared\nby all episodes",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "generative context distillation",
    "savefig.facecolor": "white",
}
UNITS = [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")]


def save(figure: Figure, path: Path) -> None:
    """Write `path`.svg and `path`.png, without the dates and versions that would differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), metadata={"Software": None}, dpi=150)


def mark(place: int) -> dict[str, Any]:
    """Colour, shape and filling of the mark of row number `place`."""
    colour = COLOURS[place % len(COLOURS)]
    filled = FILLINGS[place % len(FILLINGS)]
    return {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "markerfacecolor": colour if filled else "none",
    }


def _error(estimates: pd.DataFrame) -> list[list[float]]:
    """Distances from value to low and to high, in percent, as matplotlib's error bars take them."""
    low = (estimates["value"] - estimates["low"]).clip(lower=0) * 100
    high = (estimates["high"] - estimates["value"]).clip(lower=0) * 100
    return [low.tolist(), high.tolist()]


def draw_success(
    scores: pd.DataFrame, rows: list[str], failed: list[str], metrics: dict[str, str]
) -> Figure:
    """Shares with intervals: one line a row, one mark for each of `metrics`.

    Args:
        scores: columns row, metric, value, low, high (shares) of one task.
        rows: the rows from top to bottom.
        failed: those of them that have no marks, but this word.
        metrics: {metric: label}, in the order of the legend.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.9 + 0.62 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (metric, label) in enumerate(metrics.items()):
            found = scores[scores["metric"] == metric]
            shift = 0.22 * (place - (len(metrics) - 1) / 2)
            axes.errorbar(
                found["value"] * 100,
                [rows.index(row) + shift for row in found["row"]],
                xerr=_error(found),
                linestyle="none",
                marker=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)],
                markersize=5.5,
                elinewidth=1.2,
                capsize=2.5,
                label=label,
            )
        for row in failed:
            axes.text(50, rows.index(row), "failed", ha="center", va="center", style="italic")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-1.5, 101.5)  # a mark at 0 or 100 must not touch the names of the rows
        axes.set_xlabel("share (%) with its interval")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        for border in range(1, len(rows)):
            axes.axhline(border - 0.5, color="0.85", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper center", ncols=len(metrics), frameon=False)
    return figure


def draw_summary(shares: dict[str, pd.DataFrame], rows: list[str]) -> Figure:
    """Score and valid actions of every row, one panel a task.

    Args:
        shares: {task: columns row, score, valid_actions}, in percent.
        rows: from top to bottom.
    """
    with mpl.rc_context(STYLE):
        size = (2.4 + 2.3 * len(shares), 1.2 + 0.24 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(shares), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (task, found) in zip(panels, shares.items(), strict=True):
            places = [rows.index(row) for row in found["row"]]
            for place, column in enumerate(("valid_actions", "score")):
                axes.plot(
                    found[column],
                    places,
                    linestyle="none",
                    marker=MARKERS[place],
                    markersize=(8, 5)[place],
                    color=COLOURS[place],
                    markerfacecolor=("none", COLOURS[place])[place],
                    clip_on=False,
                    label=("valid actions", "score")[place],
                )
            axes.set_title(task.replace("_", " "))
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(rows)), rows)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        panels[0].set_xlim(0, 100)
        figure.supxlabel("percent", fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def front(points: pd.DataFrame, regime: str) -> pd.DataFrame:
    """The rows that no other row beats: none is at least as good in both and better in one.

    Sorted by FLOPs in `regime`; `points` as in `draw_success_against_cost`.
    """
    ordered = points.sort_values([regime, "value"], ascending=[True, False], kind="stable")
    best = ordered["value"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["value"] > best]


def draw_success_against_cost(points: pd.DataFrame, rows: list[str]) -> Figure:
    """Success against FLOPs per episode, one panel for each regime, on the same axes.

    FLOPs are on a logarithmic axis: the rows without a prompt need about the same and would lie on
    each other. Intervals are pale lines; `draw_success` shows them apart. A grey line joins the
    rows that no other row beats.

    Args:
        points: columns row, value, low, high (shares) and one of FLOPs for each of REGIMES.
        rows: the order of marks; those without a point are left out.
    """
    largest = points[list(REGIMES)].to_numpy().max()
    scale, unit = next((scale, unit) for scale, unit in UNITS if largest >= scale)
    marks: dict[str, Any] = {}
    with mpl.rc_context(STYLE):
        height = max(3.2, 0.6 + 0.2 * len(points))  # of the legend, if it is the higher one
        figure = Figure(figsize=(9.6, height), layout="constrained")
        panels = figure.subplots(1, len(REGIMES), sharex=True, sharey=True)
        for axes, regime in zip(panels, REGIMES, strict=True):
            unbeaten = front(points, regime)
            axes.step(
                unbeaten[regime] / scale,
                unbeaten["value"] * 100,
                where="post",
                color="0.6",
                linewidth=1.0,
            )
            for place, row in enumerate(rows):
                found = points[points["row"] == row]
                if found.empty:
                    continue
                style = mark(place)
                across, ends = found[regime] / scale, found[["low", "high"]].to_numpy().T * 100
                axes.vlines(across, *ends, colors=style["color"], linewidth=0.8, alpha=0.35)
                [marks[row]] = axes.plot(
                    across,
                    found["value"] * 100,
                    linestyle="none",
                    markeredgewidth=1.3,
                    markersize=7,
                    clip_on=False,
                    zorder=3,
                    **style,
                )
            axes.set_title(REGIME_TITLES[regime])
            axes.grid(color="0.9")
            axes.set_axisbelow(True)
        panels[0].set_ylim(0, max(10.0, points["high"].max() * 105))
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].xaxis.set_major_formatter(FormatStrFormatter("%g"))
        panels[0].xaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel("success rate (%)")
        panels[len(REGIMES) // 2].set_xlabel(f"mean {unit} per episode, log scale")
        figure.legend(list(marks.values()), list(marks), loc="outside right upper", frameon=False)
    return figure


def draw_losses(losses: dict[str, pd.DataFrame], terms: dict[str, list[str]]) -> Figure:
    """Training losses, one panel a row: each step pale, a running mean over it.

    Args:
        losses: {row: frame with the columns step and its terms}.
        terms: {row: the columns to draw}; the same term has the same line in all panels.
    """
    order = sorted({term for names in terms.values() for term in names})
    columns = min(len(losses), 4)
    lines = -(-len(losses) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 2.2 * columns, 0.8 + 2.0 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten().tolist()
        for axes, (row, frame) in zip(panels, losses.items(), strict=False):
            for term in terms[row]:
                _draw_term(axes, frame, term, order.index(term))
            axes.set_title(row)
            axes.set_yscale("log")
            axes.grid(color="0.92", which="major")
        for axes in panels[len(losses) :]:
            axes.set_axis_off()
        figure.supxlabel("optimizer step", fontsize="medium")
        figure.supylabel("loss (nats per token), log scale", fontsize="medium")
        named: dict[str, Any] = {}
        for axes in panels[: len(losses)]:
            handles, labels = axes.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        figure.legend(
            list(named.values()),
            list(named),
            loc="outside upper center",
            ncols=min(len(named), columns),
            frameon=False,
        )
    return figure


def _draw_term(axes: Axes, frame: pd.DataFrame, term: str, place: int) -> None:
    """One loss term; steps at which it has no value are left out."""
    found = frame[["step", term]].dropna()
    window = max(1, len(found) // 20)
    mean = found[term].rolling(window, min_periods=1, center=True).mean()
    style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)]}
    axes.plot(found["step"], found[term], linewidth=0.6, alpha=0.3, **style)
    line = LINES[place % len(LINES)]
    label = "weighted sum" if term == "loss" else term.replace("_", " ")
    axes.plot(found["step"], mean, linewidth=1.6, linestyle=line, label=label, **style)
