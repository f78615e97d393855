"""The report's section on compressed prompts: LLMLingua-2's rates, and what ICAE's slots hold."""

from pathlib import Path

import pandas as pd

from gcd.core.records import read_json
from gcd.report import tables
from gcd.report.results import TaskResults
from gcd.report.sentences import paragraph
from gcd.report.tables import percent

PHASES = {"untrained": "Untrained", "pretraining": "Pretrained", "instruction": "As shipped"}
NOTE = (
    "Tokens are the target model's, of the messages alone and with the chat template's frames, "
    "which are not compressed. Of slots: how well the frozen decoder writes the prompt from them, "
    "each token after the right ones before it, in nats a token, and the share of tokens that it "
    "would choose. The first phase trains for that; the second, on conversations, gives some of "
    "it up."
)


def rates_table(results: list[TaskResults], models: Path) -> pd.DataFrame:
    """The rates that were asked for and came out, one line a task and row."""
    lines = []
    for found in results:
        for row in found.played:
            path = models / found.task / found.records[row].method / "rates.json"
            if path.exists():
                rate = read_json(path)["rows"][row]
                lines.append(
                    {
                        "Row": f"{found.task}, {row}",
                        "Tokens": f"{rate['content_tokens']:,}",
                        "Asked (%)": percent(rate["asked"]),
                        "Kept (%)": percent(rate["realised"]),
                        "Kept, with template (%)": percent(rate["realised_with_template"]),
                    }
                )
    return pd.DataFrame(lines)


def reconstruction_table(results: list[TaskResults], models: Path) -> pd.DataFrame:
    """How well the prompt can be written from its slots after each phase, a line a task and row."""
    lines = []
    for found in results:
        for row in found.played:
            path = models / found.task / found.records[row].method / row / "reconstruction.json"
            if path.exists():
                phases = read_json(path)
                line = {"Row": f"{found.task}, {row}"}
                for phase, title in PHASES.items():
                    line[f"{title} (nats)"] = f"{phases[phase]['nats_per_token']:.3f}"
                    line[f"{title} (%)"] = percent(phases[phase]["right_tokens"])
                lines.append(line)
    return pd.DataFrame(lines)


def render(results: list[TaskResults], models: Path) -> str:
    """Both tables; nothing where no row compresses the prompt."""
    rates, written = (table(results, models) for table in (rates_table, reconstruction_table))
    if rates.empty and written.empty:
        return ""
    parts = ["## What is left of a compressed prompt"]
    for table, file in ((rates, "METHOD/rates.json"), (written, "METHOD/ROW/reconstruction.json")):
        if not table.empty:
            parts += [tables.markdown(table), f"*Source: `models/TASK/{file}`; stage `fit`.*"]
    return "\n\n".join([*parts, paragraph(NOTE)])
