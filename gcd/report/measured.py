"""Seconds of a turn with and without a prompt, as `make bench` recorded them, for the report."""

from pathlib import Path
from typing import Any

import pandas as pd

from gcd.report import tables
from gcd.report.results import read_recorded
from gcd.report.sentences import paragraph, source
from gcd.report.transcripts import escape

RECORD = Path("reports/benchmarks/inference.json")


def latency_table(record: dict[str, Any]) -> pd.DataFrame:
    """One line a figure and regime: medians of both sides, and their ratio with its range."""
    lines = []
    for one in [record, *record["further"]]:
        ours, teacher = (f"{one[side]['median']:.3f}" for side in ("ours", "reference"))
        ratio = one["ratio"]
        lines.append(
            {
                "Seconds": one["figure"],
                "Internalised": ours,
                "Prompted": teacher,
                "Prompted / internalised": f"{ratio['median']:.2f} "
                f"({ratio['low']:.2f}-{ratio['high']:.2f})",
            }
        )
    return pd.DataFrame(lines)


def render(record: dict[str, Any]) -> str:
    """The report's section."""
    used, facts, host = record["settings"], record["facts"], record["host"]
    return "\n\n".join(
        [
            "## Measured latency",
            tables.markdown(latency_table(record)),
            source("`make bench`", "benchmarks/inference.json"),
            paragraph(
                f"One session at a time on {escape(used['task'])}, {used['turns']} turns of "
                f"{used['new_tokens']} tokens, a prompt of {facts['prompt_tokens']} tokens; "
                f"medians of {record['repeats']} runs, both sides in turns in one process, on "
                f"{escape(str(host['processor']))}, {host['threads']} threads. Seconds depend on "
                "the machine; the ratios less so."
            ),
        ]
    )


def read_record(path: Path = RECORD) -> dict[str, Any]:
    """The benchmark's file; raises UserError if it is missing."""
    found: dict[str, Any] = read_recorded(path, "make bench")
    return found
