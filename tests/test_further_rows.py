"""Rows of a wider profile in the report: shown where the two runs agree, and only there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.report.further_rows import RecordedRun, RecordedTask, read_run, render
from gcd.report.results import TaskResults
from gcd.report.tables import results_table
from tests.miniature import repro, run_module
from tests.test_reporting import ROWS, make_results

WIDE = make_results(["ls"])


def recorded(**changes: str) -> RecordedRun:
    """A run with all rows, as if `changes` had failed."""
    kept = [row for row in ROWS if row not in changes]
    task = RecordedTask(
        rows=ROWS,
        failures=changes,
        scores={row: WIDE.scores[row] for row in kept},
        costs={row: WIDE.costs[row] for row in kept},
    )
    return RecordedRun(tasks={"os": task, "a task that is not played here": task})


def without(*rows: str) -> TaskResults:
    """A run that lacks `rows`."""
    kept = [row for row in ROWS if row not in rows]
    return replace(WIDE, rows=kept, scores={row: WIDE.scores[row] for row in kept})


def test_nothing_is_said_where_nothing_is_missing():
    assert render(recorded(), [WIDE]) == ""
    assert render(RecordedRun(tasks={}), [WIDE]) == ""


def test_missing_rows_are_shown_with_the_numbers_of_their_run():
    text = render(recorded(), [without("seqkd", "gcd")])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.split(" | ")[0] for line in lines} == {"| Row", "| seqkd", "| gcd", "| :--"}
    [success] = results_table(WIDE.scores, ["gcd"])["Success, all (%)"]
    assert any(line.startswith("| gcd | ") and success in line for line in lines)
    assert "a task that is not played here" not in text


def test_a_row_that_failed_there_is_named_with_its_reason():
    text = render(recorded(gcd="The loss is <nan>."), [without("gcd")])
    assert "| gcd | failed | " in text
    assert r"gcd failed: The loss is \<nan\>." in text


def test_a_run_that_came_out_differently_is_named_and_not_shown():
    here = without("gcd")
    scores = {**here.scores, "seqkd": here.scores["no_prompt"]}
    text = render(recorded(), [replace(here, scores=scores)])
    assert "(os/seqkd)" in text
    assert "|" not in text
    gone = {row: found for row, found in here.scores.items() if row != "seqkd"}
    assert "(os/seqkd)" in render(recorded(), [replace(here, scores=gone)])


def test_a_record_that_is_none(tmp_path: Path):
    path = tmp_path / "further_rows.json"
    path.write_text('{"tasks": {"os": {"rows": []}}}')
    with pytest.raises(UserError, match=r"`tasks\.os\.failures`: Field required.*PROFILE=all"):
        read_run(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_run(path)


def test_a_row_that_is_taken_out_stays_in_the_report(reproduced: Path, tmp_path: Path):
    """A recorded run, then the same with a row less, through the real `dvc repro`."""
    folder = Path(shutil.copytree(reproduced, tmp_path / "repository"))
    said = run_module(folder, "gcd.report.further_rows")
    assert (said.returncode, said.stdout) == (0, "reports/further_rows.json: 4 rows.\n")
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    del params["methods"]["seqkd"]
    yaml.dump(params, folder / "params.yaml")
    before = (folder / "reports/tables/os_interaction_results.md").read_text()
    [line] = [line for line in before.splitlines() if line.startswith("| seqkd |")]
    done = repro(folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    head, tail = (folder / "reports/report.md").read_text().split("## Further rows\n")
    assert line in tail
    assert line not in head
    # Its folders are still there, and count for nothing.
    assert (folder / "reports/episodes/os_interaction/seqkd").exists()
    for name in ("scores", "costs", "comparisons", "probe_scores", "metrics"):
        assert "seqkd" not in (folder / f"reports/{name}.json").read_text()
