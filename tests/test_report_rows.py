"""Many rows, failed rows and silent rows in the report's tables, sentences and figures."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from gcd.core.errors import UserError
from gcd.report import figures
from gcd.report.cost_tables import (
    Costs,
    break_even,
    break_even_table,
    tidy_training,
    training_table,
)
from gcd.report.markdown import shown_tables, write_report
from gcd.report.results import TaskResults, loss_terms, read_losses
from gcd.report.sentences import summarise, summarise_recall, summarise_trouble
from gcd.report.summary import when_not
from gcd.report.tables import summary_table, with_failures
from tests.test_reporting import LEFT_OUT, MODEL, ROWS, SCORE, SECTIONS, make_results

REASON = "The loss is nan | at step 3."


@pytest.fixture
def results() -> TaskResults:
    """Four rows, of which seqkd failed and no_prompt never acted."""
    made = make_results(["ls"])
    without = {
        name: getattr(made, name).copy() for name in ("records", "scores", "costs", "losses")
    }
    for found in without.values():
        del found["seqkd"]
    silent = without["scores"]["no_prompt"]
    without["scores"]["no_prompt"] = {
        **silent,
        "valid_action_rate": {"value": 0.0, "low": 0.0, "high": 0.0, "n": 8},
    }
    return replace(made, failures={"seqkd": REASON}, **without)


def test_a_failed_row_stands_in_its_place_in_every_table(results: TaskResults) -> None:
    shown = shown_tables(results)
    assert shown.pop("break_even").empty  # of trained rows, and nothing was trained here
    for table in shown.values():
        assert table["Row"].tolist() == ["full_prompt", "no_prompt", "seqkd", "gcd"]
        assert set(table.iloc[2, 1:]) == {"failed"}
        assert "failed" not in table.iloc[[0, 1, 3]].to_numpy()
    tasks = {"os": results.scores, "web": results.scores}
    summary = summary_table(tasks, results.rows, {"os": ["seqkd"], "web": []})
    assert summary.iloc[2].tolist() == ["seqkd", "failed", "failed", "n/a", "n/a"]
    frame = pd.DataFrame({"Row": ["a", "c"], "x": [1, 2]})
    assert with_failures(frame, ["a", "b", "c", "d"], ["d"]).to_numpy().tolist() == [
        ["a", 1],
        ["c", 2],
        ["d", "failed"],
    ]
    assert with_failures(pd.DataFrame([]), ["a"], ["a"]).empty


def test_sentences_name_reasons_and_silent_rows(results: TaskResults) -> None:
    assert summarise_trouble(results).splitlines() == [
        "- no_prompt produced no valid action.",
        "- seqkd failed: The loss is nan \\| at step 3.",
    ]
    assert "seqkd" not in summarise(results)
    assert summarise_trouble(make_results(["ls"])) == ""


def test_recall_is_said_and_shown_without_an_interval(results: TaskResults) -> None:
    results.scores["gcd"]["prompt_recall"] = {"value": 0.8, "low": 0.8, "high": 0.8, "n": 1}
    said = " ".join(summarise_recall(results).split())
    assert said.endswith("over 1 request. It is highest for gcd, 80.0 %.")
    table = shown_tables(results)["results"].set_index("Row")
    assert table.loc["gcd", "Prompt recall (%)"] == "80.0"
    assert table.loc["no_prompt", "ROUGE-L (%)"] == "12.5"


def test_what_training_took(results: TaskResults) -> None:
    results.costs["gcd"]["training"] = {
        "optimizer_steps": 42,
        "read_tokens": 60_000,
        "supervised_tokens": 12_345,
        "trainable_parameters": 4_884_480,
        "flops": 7_250_000_000,
    }
    table = training_table(results.costs, ["full_prompt", "gcd"])
    assert table.to_numpy().tolist() == [
        ["full_prompt", "0", "0", "0", "0.0", "600", "100"],
        ["gcd", "4,884,480", "42", "12,345", "7.2", "0", "0"],
    ]
    assert tidy_training(results.costs, ["gcd"])["read_tokens"].tolist() == [60_000]


def test_the_report_with_failures_is_whole_and_the_same_twice(
    results: TaskResults, tmp_path: Path
) -> None:
    data = pd.DataFrame([{"Task": "os", "Data": "inputs", "Kept": 3}])
    written = []
    for name in ("a", "b"):
        write_report([results], data, LEFT_OUT, MODEL, SCORE, SECTIONS, tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    text = (tmp_path / "a/report.md").read_text()
    assert "seqkd failed: The loss is nan" in text
    for name in ("results", "costs", "training"):
        lines = (tmp_path / f"a/tables/os_{name}.csv").read_text().splitlines()
        [failed] = [line for line in lines if line.startswith("seqkd,")]
        assert "failed" in failed


def test_25_rows_differ_in_grey() -> None:
    marks = [figures.mark(place) for place in range(26)]
    grey = {(mark["marker"], mark["markerfacecolor"] == "none") for mark in marks}
    assert len(grey) == 26


def test_a_legend_covers_no_panel_and_has_every_row_with_a_point() -> None:
    rows = [f"a_row_with_a_long_name_{number}" for number in range(25)]
    points = pd.DataFrame(
        {
            "row": row,
            "value": 0.02 * place,
            "low": 0.0,
            "high": 0.6,
            **dict.fromkeys(("recompute", "session_cache", "prefix_cache"), 1e9 * (place + 1)),
        }
        for place, row in enumerate(rows[1:])
    )
    figure = figures.draw_success_against_cost(points, rows)
    figure.draw_without_rendering()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == rows[1:]
    box = legend.get_window_extent()
    assert all(not box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_losses_are_read_for_trained_methods_only(tmp_path: Path) -> None:
    rows = {**{row: row for row in ROWS}, "icae_8": "icae", "icae_32": "icae", "cut_70": "cut"}
    frame = make_results(["ls"]).losses["gcd"]
    # A method of one row, one of a row each, and one that trains once for all its rows.
    for folder in ("gcd", "icae/icae_32", "icae/icae_8", "cut"):
        (tmp_path / folder).mkdir(parents=True)
        frame.assign(entropy=1.0).to_csv(tmp_path / folder / "loss.csv", index=False)
        terms = {name: {"weights": {name: 1.0}} for name in ("sft", "prompt_generation")}
        (tmp_path / folder / "examples.json").write_text(json.dumps(terms), encoding="utf-8")
    losses = read_losses(tmp_path, rows)
    assert list(losses) == ["gcd", "icae_8", "icae_32", "cut"]
    # A number that was measured beside the losses is none of them.
    assert loss_terms(losses["cut"]) == ["sft", "prompt_generation", "loss"]
    (tmp_path / "gcd/loss.csv").write_text("step,loss\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="learning_rate"):
        read_losses(tmp_path, rows)


def test_sessions_until_training_pays_by_hand(results: TaskResults) -> None:
    """300 + 700 FLOPs against 2.5 saved a session; a row that saves nothing never pays."""
    trained = {"flops": 700}
    costs: Costs = {
        "full_prompt": {"flops": {"recompute": 10, "session_cache": 10, "prefix_cache": 10}},
        "gcd": {
            "data_flops": 300,
            "training": trained,
            "flops": {},
            "flops_relative_on_teacher_episodes": {
                "recompute": 0.75,
                "session_cache": 1.0,
                "prefix_cache": 1.25,
            },
        },
    }
    assert break_even(costs, "gcd", "recompute") == 400
    assert break_even(costs, "gcd", "session_cache") is None
    assert break_even(costs, "gcd", "prefix_cache") is None
    costs["full_prompt"]["training"] = {"flops": 0}
    table = break_even_table(costs, ["full_prompt", "gcd"]).set_index("Row")
    assert table.to_numpy().tolist() == [["0.0", "0.0", "400", "never", "never"]]
    assert list(table.index) == ["gcd"]
    priced = replace(results, rows=["full_prompt", "gcd"], costs=costs)
    said = when_not([priced], "gcd").replace("\n", " ")
    assert "training after 400 sessions (os) where the prompt is read in every turn" in said
    assert "and never (os) where its cache is shared by all" in said
    assert when_not([priced], "seqkd") == ""


def test_the_front_is_what_no_other_row_beats() -> None:
    points = pd.DataFrame(
        {
            "row": ["cheap", "worse", "better", "dear", "equal"],
            "value": [0.2, 0.1, 0.5, 0.5, 0.2],
            "recompute": [1.0, 2.0, 3.0, 4.0, 1.0],
        }
    )
    assert figures.front(points, "recompute")["row"].tolist() == ["cheap", "better"]
