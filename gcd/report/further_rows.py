"""The rows that a wider profile adds: recorded by its own run, shown in the default's report.

python -m gcd.report.further_rows      (`make repro PROFILE=all` does it)

reports/further_rows.json holds, of each task, that run's rows in their order, the reasons of those
that failed, scores and costs. They are shown where the rows that both runs have came out the same:
a record of other settings, other code or another machine is named and not shown.
"""

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gcd.core.errors import UserError
from gcd.core.params import load_file
from gcd.core.records import read_json, write_text
from gcd.core.stage import run
from gcd.report import cost_tables, tables
from gcd.report.cost_tables import Costs
from gcd.report.results import TaskResults, order_rows
from gcd.report.sentences import listed, paragraph, source, summarise_trouble
from gcd.report.tables import Scores
from gcd.report.transcripts import escape
from gcd.rows import failures, played, read_rows

REPORTS = Path("reports")
RECORD = REPORTS / "further_rows.json"
SOURCE = source("`make repro PROFILE=all`", RECORD.name)


class RecordedTask(BaseModel):
    """One task of the recorded run; `rows` is the order, failed ones are in `failures` alone."""

    model_config = ConfigDict(extra="forbid")

    rows: list[str]
    failures: dict[str, str]
    scores: Scores
    costs: Costs


class RecordedRun(BaseModel):
    """The whole record."""

    model_config = ConfigDict(extra="forbid")

    tasks: dict[str, RecordedTask]


def read_run(path: Path = RECORD) -> RecordedRun:
    """Raises UserError if the record is missing or malformed."""
    try:
        return RecordedRun.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: `{where}`: {first['msg']}. Take the committed file back with git, or run "
            "`make repro PROFILE=all`."
        ) from error


def further_results(recorded: RecordedRun, results: list[TaskResults]) -> list[TaskResults]:
    """The recorded rows that `results` lacks, for each task that has such rows."""
    found = []
    for here in results:
        if here.task not in recorded.tasks:
            continue
        there = recorded.tasks[here.task]
        rows = [row for row in there.rows if row not in here.rows]
        if rows:
            failed = {row: why for row, why in there.failures.items() if row in rows}
            found.append(
                TaskResults(here.task, rows, {}, failed, there.scores, {}, there.costs, losses={})
            )
    return found


def differing_rows(recorded: RecordedRun, results: list[TaskResults]) -> list[str]:
    """TASK/ROW for the rows of both runs that failed in one only, or whose scores differ."""
    return [
        f"{here.task}/{row}"
        for here in results
        if here.task in recorded.tasks
        for there in [recorded.tasks[here.task]]
        for row in here.rows
        if row in there.rows and here.scores.get(row) != there.scores.get(row)
    ]


def render(recorded: RecordedRun, results: list[TaskResults]) -> str:
    """The report's section, or nothing where the run at hand has all the recorded rows."""
    further = further_results(recorded, results)
    if not further:
        return ""
    rows = list(dict.fromkeys(row for found in further for row in found.rows))
    names = listed([escape(row) for row in rows])
    differing = differing_rows(recorded, results)
    if differing:
        return "\n\n".join(
            [
                "## Further rows",
                paragraph(
                    f"reports/{RECORD.name} has {names} of another run, whose other rows came out "
                    f"differently ({escape(', '.join(differing[:3]))}"
                    f"{', …' if len(differing) > 3 else ''}): other settings, other code or "
                    "another machine. They are not shown. `make repro PROFILE=all` records them "
                    "anew."
                ),
            ]
        )
    parts = [
        "## Further rows",
        paragraph(
            f"{names}: trained and played by `make repro PROFILE=all`, on the same data and the "
            f"same samples, and recorded in reports/{RECORD.name}. The rows above are in that run "
            "too and came out the same there, to the last digit. Comparisons, probes and "
            "transcripts are of the rows above alone."
        ),
        tables.markdown(
            tables.summary_table(
                {found.task: found.scores for found in further},
                rows,
                {found.task: list(found.failures) for found in further},
            )
        ),
        SOURCE,
    ]
    return "\n\n".join(parts + [_render_task(found) for found in further])


def _render_task(found: TaskResults) -> str:
    failed = list(found.failures)
    shown = {
        f"### Further rows: {escape(found.task)}": tables.results_table(found.scores, found.played),
        f"### What further rows were trained on: {escape(found.task)}": cost_tables.training_table(
            found.costs, found.played
        ),
        f"### What further rows cost: {escape(found.task)}": cost_tables.costs_table(
            found.costs, found.played
        ),
        f"### When training further rows pays: {escape(found.task)}": cost_tables.break_even_table(
            found.costs, found.played
        ),
    }
    parts = []
    for title, table in shown.items():
        filled = tables.with_failures(table, found.rows, failed)
        parts += [title, tables.markdown(filled), SOURCE]
    return "\n\n".join(part for part in [*parts, summarise_trouble(found)] if part)


def main() -> None:
    """Write the record of the run that has just ended."""
    methods = list(load_file()["methods"])
    scores, costs = (read_json(REPORTS / f"{name}.json") for name in ("scores", "costs"))
    tasks = {}
    for task, rows in read_rows(REPORTS / "episodes", methods).items():
        order = order_rows(rows, methods)
        absent = [row for row in order if row in played(rows) and row not in scores[task]]
        if absent:
            raise UserError(f"reports/scores.json lacks {', '.join(absent)}. Run `dvc repro`.")
        failed = {row: why for row, why in failures(rows).items() if row in order}
        tasks[task] = RecordedTask(
            rows=order,
            failures=failed,
            scores={row: scores[task][row] for row in order if row not in failed},
            costs={row: costs[task][row] for row in order if row not in failed},
        )
    write_text(RECORD, RecordedRun(tasks=tasks).model_dump_json(indent=2) + "\n")
    sys.stdout.write(f"{RECORD}: {sum(len(task.rows) for task in tasks.values())} rows.\n")


if __name__ == "__main__":
    run(main)
