"""Write reports/report.md with its tables and figures, from recorded files only.

python -m stages.report
"""

import shutil
from pathlib import Path

from gcd import further_rows, probe_tables
from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.core.stage import run
from gcd.cost import read_model
from gcd.cost_tables import Costs
from gcd.probe_scores import read_probes
from gcd.reporting import write_report
from gcd.results import TaskResults, order_rows, read_losses
from gcd.rows import Rows, failures, played, read_rows
from gcd.tables import Scores, data_table, left_out_table, read_json

REPORTS = Path("reports")
MODELS = Path("models")
PSEUDO = Path("data/pseudo")
SAMPLES = Path("data/tasks")


def task_results(
    task: str, records: Rows, order: list[str], scores: Scores, costs: Costs
) -> TaskResults:
    return TaskResults(
        task=task,
        rows=order,
        records=played(records),
        failures={row: why for row, why in failures(records).items() if row in order},
        scores=scores,
        costs=costs,
        losses=read_losses(MODELS / task, {row: records[row].method for row in order}),
    )


def main() -> None:
    params = read_params("methods", "score")
    scores = read_json(REPORTS / "scores.json")
    costs = read_json(REPORTS / "costs.json")
    rows = read_rows(REPORTS / "episodes")
    for name, known in (("scores.json", scores), ("costs.json", costs)):
        missing = [
            f"{task}/{row}"
            for task, found in rows.items()
            for row in played(found)
            if row not in known.get(task, {})
        ]
        if missing:
            raise UserError(f"{REPORTS / name} lacks {', '.join(missing)}. Run `dvc repro`.")
    results = [
        task_results(task, found, order_rows(found, params.methods), scores[task], costs[task])
        for task, found in rows.items()
    ]
    for name in ("tables", "figures"):
        shutil.rmtree(REPORTS / name, ignore_errors=True)
    model = read_model(MODELS / "base/model.json")
    left_out = left_out_table(SAMPLES, {task: played(found) for task, found in rows.items()})
    confidence = params.score.confidence
    behaviour = probe_tables.write_section(
        results,
        read_probes(REPORTS / "probes"),
        read_json(REPORTS / "probe_scores.json"),
        REPORTS / "tables",
    )
    further = further_rows.render(further_rows.read_run(), results)
    write_report(
        results, data_table(PSEUDO), left_out, behaviour, further, model, confidence, REPORTS
    )


if __name__ == "__main__":
    run(main)
