"""The report's tables of costs: of episodes, of training, and of what must be shipped."""

import math
from typing import Any

import pandas as pd

from gcd.core.records import FULL_PROMPT
from gcd.cost import REGIMES
from gcd.report.tables import percent

REGIME_NAMES = {
    "recompute": "recompute",
    "session_cache": "session cache",
    "prefix_cache": "prefix cache",
}

Costs = dict[str, dict[str, Any]]  # of one task: {row: costs}


def priced(costs: Costs, rows: list[str]) -> list[str]:
    """The rows that have costs of episodes: those that played a turn."""
    return [row for row in rows if "flops" in costs.get(row, {})]


def tidy_costs(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """One line a row; FLOPs and ratios as columns such as `flops_recompute`."""
    lines = []
    for row in priced(costs, rows):
        line: dict[str, Any] = {"row": row}
        for name, value in costs[row].items():
            if name == "training":
                continue
            if isinstance(value, dict):
                line |= {f"{name}_{regime}": value[regime] for regime in REGIMES}
            else:
                line[name] = value
        lines.append(line)
    return pd.DataFrame(lines)


def tidy_training(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """One line a row: what its training took, and what serving it takes beside the model."""
    return pd.DataFrame(
        {
            "row": row,
            **costs[row]["training"],
            "bytes_to_ship": costs[row]["bytes_to_ship"],
            "prompt_tokens": costs[row]["prompt_tokens"],
        }
        for row in rows
    )


def training_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """The same as it is printed."""
    return pd.DataFrame(
        {
            "Row": row,
            "Trainable parameters": f"{training['trainable_parameters']:,}",
            "Optimizer steps": f"{training['optimizer_steps']:,}",
            "Supervised tokens": f"{training['supervised_tokens']:,}",
            "Training GFLOP": flops(training["flops"]),
            "Bytes to ship": f"{costs[row]['bytes_to_ship']:,}",
            "Prompt positions": f"{costs[row]['prompt_tokens']:,}",
        }
        for row, training in ((row, costs[row]["training"]) for row in rows)
    )


def break_even(costs: Costs, row: str, regime: str) -> int | None:
    """Sessions after which the row's data and training have paid for themselves, in FLOPs.

    A session is the mean of full_prompt's episodes; a saving is what the row needs less on the same
    turns. None where it needs no less: it never pays.
    """
    share = costs[row]["flops_relative_on_teacher_episodes"][regime]
    saved = costs[FULL_PROMPT]["flops"][regime] * (1 - share)
    invested = costs[row]["data_flops"] + costs[row]["training"]["flops"]
    return math.ceil(invested / saved) if saved > 0 else None


def break_even_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """What each trained row took, and after how many sessions it pays in each regime."""
    lines = []
    for row in priced(costs, rows):
        if costs[row]["training"]["flops"]:
            sessions = {regime: break_even(costs, row, regime) for regime in REGIMES}
            lines.append(
                {
                    "Row": row,
                    "Data GFLOP": flops(costs[row]["data_flops"]),
                    "Training GFLOP": flops(costs[row]["training"]["flops"]),
                    **{
                        f"Sessions, {REGIME_NAMES[regime]}": "never"
                        if count is None
                        else f"{count:,}"
                        for regime, count in sessions.items()
                    },
                }
            )
    return pd.DataFrame(lines)


def flops(value: float) -> str:
    """FLOPs in units of 10^9, one digit after the point."""
    return f"{value / 1e9:,.1f}"


def megabytes(count: float) -> str:
    """Bytes in units of 10^6, one digit after the point."""
    return f"{count / 1e6:,.1f}"


def costs_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """Costs as they are printed: tokens, FLOPs, cache."""
    return pd.DataFrame(
        {
            "Row": row,
            "Episodes": found["episodes"],
            "Prompt tokens": found["prompt_tokens"],
            "Input tokens": f"{found['input_tokens']:,.1f}",
            "Output tokens": f"{found['output_tokens']:,.1f}",
            **{
                f"GFLOP, {REGIME_NAMES[regime]}": flops(found["flops"][regime])
                for regime in REGIMES
            },
            "Largest cache (MB)": megabytes(found["kv_bytes_peak"]),
            "Without the prompt's (MB)": megabytes(
                found["kv_bytes_peak"] - found["kv_bytes_prompt"]
            ),
        }
        for row, found in ((row, costs[row]) for row in priced(costs, rows))
    )


def relative_costs_table(costs: Costs, rows: list[str]) -> pd.DataFrame:
    """FLOPs in percent of full_prompt's: each row's own episodes, and full_prompt's episodes."""
    groups = {
        "own episodes": "flops_relative_to_full_prompt",
        f"{FULL_PROMPT}'s episodes": "flops_relative_on_teacher_episodes",
    }
    return pd.DataFrame(
        {
            "Row": row,
            **{
                f"{label}, {REGIME_NAMES[regime]} (%)": percent(costs[row][key][regime])
                for label, key in groups.items()
                for regime in REGIMES
            },
        }
        for row in priced(costs, rows)
    )
