"""Write the report (Markdown, HTML), its transcripts, tables and figures, from the records only.

python -m stages.report
"""

import shutil
from pathlib import Path

from gcd.comparisons import Compared
from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.core.records import FULL_PROMPT, read_json
from gcd.core.stage import run
from gcd.cost import read_model
from gcd.experiments import showing
from gcd.probe_scores import read_probes
from gcd.report import compressed, further_rows, measured, probe_tables, provenance
from gcd.report.cost_tables import Costs
from gcd.report.markdown import Sections, write_report
from gcd.report.results import TaskResults, order_rows, read_losses
from gcd.report.tables import Scores, data_table, left_out_table
from gcd.report.transcript_page import write_page
from gcd.rows import Rows, failures, played, read_rows

REPORTS = Path("reports")
MODELS = Path("models")
PSEUDO = Path("data/pseudo")
SAMPLES = Path("data/tasks")


def task_results(
    task: str,
    records: Rows,
    order: list[str],
    scores: Scores,
    compared: Compared,
    costs: Costs,
) -> TaskResults:
    return TaskResults(
        task=task,
        rows=order,
        records=played(records),
        failures={row: why for row, why in failures(records).items() if row in order},
        scores=scores,
        compared=compared,
        costs=costs,
        losses=read_losses(MODELS / task, {row: records[row].method for row in order}),
    )


def main() -> None:
    params = read_params("seed", "methods", "score", "report")
    names = ("scores", "costs", "comparisons")
    scores, costs, comparisons = (read_json(REPORTS / f"{name}.json") for name in names)
    rows = read_rows(REPORTS / "episodes", params.methods)
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
        task_results(
            task,
            found,
            order_rows(found, params.methods),
            scores[task],
            comparisons[task],
            costs[task],
        )
        for task, found in rows.items()
    ]
    for name in ("tables", "figures"):
        shutil.rmtree(REPORTS / name, ignore_errors=True)
    model = read_model(MODELS / "base/model.json")
    left_out = left_out_table(SAMPLES, {task: played(found) for task, found in rows.items()})
    prompt_tokens = {task: costs[task][FULL_PROMPT]["prompt_tokens"] for task in rows}
    behaviour = probe_tables.write_section(
        results,
        read_probes(REPORTS / "probes", params.methods),
        read_json(REPORTS / "probe_scores.json"),
        REPORTS / "tables",
    )
    sections = Sections(
        experiments_in_summary=showing.for_summary(results, params.seed, params.score.compared_row),
        compressed=compressed.render(results, MODELS),
        behaviour=behaviour,
        further=further_rows.render(further_rows.read_run(), results),
        experiments=showing.render(results, params.seed, REPORTS),
        measured=measured.render(measured.read_record()),
        provenance=provenance.render(
            read_json(MODELS / "base/model.json"), list(rows), prompt_tokens, params.seed
        ),
    )
    write_report(results, data_table(PSEUDO), left_out, model, params.score, sections, REPORTS)
    write_page(results, params.report.transcript_characters, REPORTS / "transcripts.html")


if __name__ == "__main__":
    run(main)
