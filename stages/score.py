"""Score the recorded episodes: success, agreement with the teacher, intervals. Needs no model.

python -m stages.score
"""

import json
from pathlib import Path

from gcd.core.params import read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.rows import read_rows
from gcd.scoring import Bootstrap, score_tasks

EPISODES = Path("reports/episodes")
SCORES = Path("reports/scores.json")


def main() -> None:
    params = read_params("seed", "score")
    bootstrap = Bootstrap(params.score.confidence, params.score.bootstrap_samples, params.seed)
    scores = score_tasks(read_rows(EPISODES), bootstrap)
    write_text(SCORES, json.dumps(scores, indent=2, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
