"""Score the recorded episodes: success, agreement with the teacher, intervals. Needs no model.

Rows that failed are left out; the report names them.

python -m stages.score
"""

import json
from pathlib import Path

from gcd.core.params import read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.rows import played, read_rows
from gcd.scoring import Bootstrap, score_tasks

EPISODES = Path("reports/episodes")
SCORES = Path("reports/scores.json")


def main() -> None:
    params = read_params("seed", "score")
    bootstrap = Bootstrap(params.score.confidence, params.score.bootstrap_samples, params.seed)
    tasks = {task: played(rows) for task, rows in read_rows(EPISODES).items()}
    scores = score_tasks(tasks, bootstrap)
    write_text(SCORES, json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
