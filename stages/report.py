"""Write reports/report.md with its tables and figures, from recorded files only.

python -m stages.report
"""

import shutil
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.core.stage import run
from gcd.cost import read_model
from gcd.reporting import write_report
from gcd.results import TaskResults, order_rows, read_losses
from gcd.rows import read_rows
from gcd.tables import data_table, left_out_table, read_json

REPORTS = Path("reports")
MODELS = Path("models")
PSEUDO = Path("data/pseudo")
SAMPLES = Path("data/tasks")


def main() -> None:
    params = read_params("methods", "score")
    scores = read_json(REPORTS / "scores.json")
    costs = read_json(REPORTS / "costs.json")
    rows = read_rows(REPORTS / "episodes")
    for name, known in (("scores.json", scores), ("costs.json", costs)):
        missing = [
            f"{task}/{row}" for task in rows for row in rows[task] if row not in known.get(task, {})
        ]
        if missing:
            raise UserError(f"{REPORTS / name} lacks {', '.join(missing)}. Run `dvc repro`.")
    results = [
        TaskResults(
            task=task,
            rows=order_rows(records, params.methods),
            records=records,
            scores=scores[task],
            costs=costs[task],
            losses=read_losses(MODELS / task, params.methods),
        )
        for task, records in rows.items()
    ]
    for name in ("tables", "figures"):
        shutil.rmtree(REPORTS / name, ignore_errors=True)
    model = read_model(MODELS / "base/model.json")
    left_out = left_out_table(SAMPLES, rows)
    confidence = params.score.confidence
    write_report(results, data_table(PSEUDO), left_out, model, confidence, REPORTS)


if __name__ == "__main__":
    run(main)
