"""Where the report's numbers come from: model, prompts, software, commands, machine and times.

The machine and the seconds of each stage are those of the recorded run, from reports/benchmarks/;
everything else is read from what the run at hand left.
"""

import hashlib
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from gcd.data import prompt_file
from gcd.report import tables
from gcd.report.results import read_recorded
from gcd.report.sentences import paragraph, source
from gcd.report.transcripts import escape

PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "scipy"),
    *("pandas", "matplotlib", "dvc"),
)
SECONDS = Path("reports/benchmarks/stages.json")
HOST = Path("reports/benchmarks/host.json")
RECORD = "python -m gcd.repro --record"
# What the shell puts in place of what dvc.yaml leaves open.
SHELL = ("${LAUNCH:-${STAGE_PYTHON:-python}}", "${STAGE_PYTHON:-python}")


def software_table() -> pd.DataFrame:
    """The versions that are installed."""
    lines = [{"Package": "Python", "Version": platform.python_version()}]
    lines += [{"Package": name, "Version": version(name)} for name in PACKAGES]
    return pd.DataFrame(lines)


def prompts_table(tasks: list[str], prompt_tokens: dict[str, int]) -> pd.DataFrame:
    """The prompt of each task by the SHA-256 of its file, and its length."""
    return pd.DataFrame(
        {
            "Task": task,
            "Prompt, SHA-256": hashlib.sha256(prompt_file(task).read_bytes()).hexdigest(),
            "Tokens": f"{prompt_tokens[task]:,}",
        }
        for task in tasks
    )


def stages_table(pipeline: Path, seconds: dict[str, float]) -> pd.DataFrame:
    """Every stage of dvc.yaml: its command, and what its cells took in the recorded run."""
    lines = []
    for name, stage in YAML(typ="safe").load(pipeline)["stages"].items():
        took = [one for cell, one in seconds.items() if cell.partition("@")[0] == name]
        command = stage["cmd"].replace("\\", "")
        for variable in SHELL:
            command = command.replace(variable, "python")
        lines.append(
            {
                "Stage": name,
                "Command": re.sub(r"\$\{item\.(\w+)\}", lambda match: match[1].upper(), command),
                "Cells": len(took),
                "Seconds in all": f"{sum(took):,.0f}",
            }
        )
    return pd.DataFrame(lines)


def render(
    model: dict[str, Any], tasks: list[str], prompt_tokens: dict[str, int], seed: int
) -> str:
    """The report's section.

    Args:
        model: models/base/model.json.
        tasks: in the report's order.
        prompt_tokens: of the row full_prompt, by task.
        seed: params.yaml's.
    """
    facts = [f"{name}: {value}" for name, value in model.items() if name != "architecture"]
    machine = read_recorded(HOST, RECORD)
    host = [f"{name.replace('_', ' ')}: {value}" for name, value in machine.items()]
    return "\n\n".join(
        [
            "## Provenance",
            paragraph(f"Model. {escape('; '.join(facts))}. Seed {seed}."),
            tables.markdown(prompts_table(tasks, prompt_tokens)),
            source("stage `prepare`, tokens by stage `measure_cost`", "costs.json"),
            paragraph(
                "All of it comes from `make repro`, which runs the stages below, as `dvc repro` "
                "does; what each reads and writes is in dvc.yaml, every number in params.yaml, "
                "and the checksum of every file in dvc.lock."
            ),
            tables.markdown(stages_table(Path("dvc.yaml"), read_recorded(SECONDS, RECORD))),
            source(f"`{RECORD}`", "benchmarks/stages.json"),
            paragraph(
                "Seconds are sums over the cells of the recorded run, two stages at a time. It was "
                f"recorded on: {escape('; '.join(host))}."
            ),
            tables.markdown(software_table()),
            source("stage `report`, as it ran; as locked", "../constraints.txt"),
        ]
    )
