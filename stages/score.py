"""Score what was recorded of the rows: their episodes, and their probes. Needs no model.

Rows that failed are left out; the report names them.

python -m stages.score
"""

import json
from pathlib import Path
from typing import Any

from gcd.core.params import read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.probe_scores import probed, read_probes, score_probes
from gcd.rows import played, read_rows
from gcd.scoring import Bootstrap, score_tasks

REPORTS = Path("reports")


def write_scores(name: str, scores: Any) -> None:
    text = json.dumps(scores, indent=2, sort_keys=True, allow_nan=False)
    write_text(REPORTS / name, text + "\n")


def main() -> None:
    params = read_params("seed", "score")
    bootstrap = Bootstrap(params.score.confidence, params.score.bootstrap_samples, params.seed)
    tasks = {task: played(rows) for task, rows in read_rows(REPORTS / "episodes").items()}
    write_scores("scores.json", score_tasks(tasks, bootstrap))
    probes = {task: probed(rows) for task, rows in read_probes(REPORTS / "probes").items()}
    write_scores("probe_scores.json", score_probes(probes, bootstrap))


if __name__ == "__main__":
    run(main)
