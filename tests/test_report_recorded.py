"""The report's sections on what other commands recorded: latency, seconds, the machine."""

import json
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.report import measured, provenance
from tests.conftest import ROOT


def side(median: float) -> dict[str, float]:
    return {"median": median, "low": median, "high": median}


def figure(name: str, ours: float, teacher: float) -> dict[str, object]:
    return {
        "figure": name,
        "ours": side(ours),
        "reference": side(teacher),
        "ratio": {"median": teacher / ours, "low": 1.5, "high": 4.0},
    }


RECORD = {
    **figure("first token", 0.1, 0.3),
    "further": [figure("a token", 0.02, 0.05)],
    "settings": {"task": "os_interaction", "turns": 3, "new_tokens": 32},
    "facts": {"prompt_tokens": 789},
    "host": {"processor": "a | processor", "threads": 2},
    "repeats": 5,
}


def test_latency_has_a_line_for_each_figure() -> None:
    table = measured.latency_table(RECORD)
    assert list(table["Seconds"]) == ["first token", "a token"]
    assert list(table["Internalised"]) == ["0.100", "0.020"]
    assert list(table["Prompted"]) == ["0.300", "0.050"]
    assert list(table["Prompted / internalised"]) == ["3.00 (1.50-4.00)", "2.50 (1.50-4.00)"]


def test_latency_says_what_was_measured() -> None:
    text = " ".join(measured.render(RECORD).split())
    assert "3 turns of 32 tokens, a prompt of 789 tokens; medians of 5 runs" in text
    assert "](benchmarks/inference.json); `make bench`" in text


def test_seconds_are_summed_over_the_cells_of_a_stage(tmp_path: Path) -> None:
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text(
        "stages:\n"
        "  fit:\n    cmd: \\${STAGE_PYTHON:-python} -m stages.fit ${item.task} ${item.method}\n"
        "  score:\n    cmd: \\${STAGE_PYTHON:-python} -m stages.score\n"
    )
    seconds = {"fit@os-gcd": 70.4, "fit@os-seqkd": 30.0, "score": 2.0, "fitting": 9.0}
    fit, score = provenance.stages_table(pipeline, seconds).to_dict("records")
    assert fit == {
        "Stage": "fit",
        "Command": "python -m stages.fit TASK METHOD",
        "Cells": 2,
        "Seconds in all": "100",
    }
    assert (score["Cells"], score["Seconds in all"]) == (1, "2")


def test_every_stage_of_the_recorded_run_has_seconds() -> None:
    seconds = json.loads((ROOT / provenance.SECONDS).read_text())
    table = provenance.stages_table(ROOT / "dvc.yaml", seconds)
    assert sum(table["Cells"]) == len(seconds)


@pytest.mark.parametrize(
    ("path", "command"),
    [(measured.RECORD, "make bench"), (provenance.HOST, provenance.RECORD)],
)
def test_a_missing_record_names_the_command_that_makes_it(
    path: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{path}: no such file\. `{command}` records it"):
        if path == measured.RECORD:
            measured.read_record()
        else:
            provenance.render({}, [], {}, seed=0)
