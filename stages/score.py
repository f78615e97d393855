"""Score what was recorded of the rows: their episodes, and their probes. Needs no model.

Rows that failed are left out; the report names them.

python -m stages.score
"""

import json
from pathlib import Path
from typing import Any

from gcd.comparisons import compare_tasks
from gcd.core.params import read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.probe_scores import probed, read_probes, score_probes
from gcd.rows import played, read_rows
from gcd.scoring import Bootstrap, score_tasks, short_metrics

REPORTS = Path("reports")


def write(name: str, content: Any) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_text(REPORTS / f"{name}.json", text + "\n")


def main() -> None:
    params = read_params("seed", "methods", "score")
    settings = params.score
    bootstrap = Bootstrap(settings.confidence, settings.bootstrap_samples, params.seed)
    tasks = {
        task: played(rows) for task, rows in read_rows(REPORTS / "episodes", params.methods).items()
    }
    scores = score_tasks(tasks, bootstrap)
    write("scores", scores)
    compared = compare_tasks(tasks, settings.compared_row, bootstrap, settings.permutations)
    write("comparisons", compared)
    write("metrics", short_metrics(scores))
    probes = {
        task: probed(rows) for task, rows in read_probes(REPORTS / "probes", params.methods).items()
    }
    write("probe_scores", score_probes(probes, bootstrap))


if __name__ == "__main__":
    run(main)
