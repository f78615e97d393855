"""Write reports/report.md with its tables and figures, from recorded files only.

python -m stages.report
"""

import shutil
from pathlib import Path

from gcd.core.params import read_params
from gcd.core.stage import run
from gcd.cost import read_model
from gcd.reporting import TaskResults, order_rows, read_losses, write_report
from gcd.rows import read_rows
from gcd.tables import data_table, read_json

REPORTS = Path("reports")
MODELS = Path("models")
PSEUDO = Path("data/pseudo")


def main() -> None:
    params = read_params("methods", "score")
    scores = read_json(REPORTS / "scores.json")
    costs = read_json(REPORTS / "costs.json")
    results = [
        TaskResults(
            task=task,
            rows=order_rows(records, params.methods),
            records=records,
            scores=scores[task],
            costs=costs[task],
            losses=read_losses(MODELS / task, params.methods),
        )
        for task, records in read_rows(REPORTS / "episodes").items()
    ]
    for name in ("tables", "figures"):
        shutil.rmtree(REPORTS / name, ignore_errors=True)
    model = read_model(MODELS / "base/model.json")
    write_report(results, data_table(PSEUDO), model, params.score.confidence, REPORTS)


if __name__ == "__main__":
    run(main)
