"""A row that fails by itself is a result: the pipeline goes on, the report shows it as failed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from gcd.core.errors import RowFailure, UserError
from gcd.core.failures import memory_is_the_row_s_own
from gcd.report.transcripts import escape
from tests.miniature import repro, run_module

# One cannot be trained; of another's rows one cannot be played, of the third's one be trained.
METHODS = {
    "diverging": """
from gcd.core.errors import RowFailure
from gcd.core.records import write_text
from gcd.core.settings import Section

class Settings(Section):
    pass

def rows(settings):
    return ["diverging_b", "diverging_a"]

def fit(task, params, out, work):
    write_text(out / "diverging_b/loss.csv", "step,loss\\n1,nan\\n")
    raise RowFailure("The loss is nan at step 1.")

def load_agent(row, task, params, folder, work):
    raise AssertionError("it was not trained")
""",
    "too_large": """
from gcd.agents import load_base_agent
from gcd.core.records import write_text
from gcd.core.settings import Section

class Settings(Section):
    pass

def rows(settings):
    return ["too_large_9", "too_large_1"]

def fit(task, params, out, work):
    write_text(out / "note.md", "Nothing to train.")

def load_agent(row, task, params, folder, work):
    if row == "too_large_9":
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    return load_base_agent(params, [], work)
""",
    "partly": """
from gcd.agents import load_base_agent
from gcd.core.errors import RowFailure
from gcd.core.failures import by_itself
from gcd.core.records import write_text
from gcd.core.settings import Section

class Settings(Section):
    pass

def rows(settings):
    return ["partly_1", "partly_2", "partly_2_with_prompt"]

def fit(task, params, out, work):
    for number in (2, 1):
        with by_itself(out / f"partly_{number}"):
            write_text(out / f"partly_{number}/note.md", "Begun.")
            if number == 2:
                raise RowFailure("The loss is inf at step 7.")

def load_agent(row, task, params, folder, work):
    assert row == "partly_1"
    return load_base_agent(params, [], work)
""",
}
REASONS = {
    "diverging_b": "The loss is nan at step 1.",
    "diverging_a": "The loss is nan at step 1.",
    "partly_2": "The loss is inf at step 7.",
    "partly_2_with_prompt": "The loss is inf at step 7.",
    "too_large_9": "out of memory: [enforce fail] DefaultCPUAllocator: can't allocate memory",
}
TABLES = ("results", "costs", "relative_costs", "training", "behaviour")


def add_methods(reproduced: Path, folder: Path) -> Path:
    """A copy of a repository that has run, with two methods more."""
    shutil.copytree(reproduced, folder)
    for name, text in METHODS.items():
        (folder / f"gcd/methods/{name}.py").write_text(text)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    first = params["methods"].pop("full_prompt")  # the new ones go before all others
    new = {"full_prompt": first, "too_large": {}, "diverging": {}, "partly": {}}
    params["methods"] = new | params["methods"]
    yaml.dump(params, folder / "params.yaml")
    return folder


def test_the_stages_end_well_and_write_the_reason_down(tmp_path: Path, reproduced: Path) -> None:
    folder = add_methods(reproduced, tmp_path / "repository")
    failing = {"fit": "diverging", "run_episodes": "diverging_b", "probe_behaviour": "diverging_a"}
    for stage, row in failing.items():
        done = run_module(folder, f"stages.{stage}", "os_interaction", "diverging")
        assert done.returncode == 0
        assert f"os_interaction, {row} fails: The loss is nan at step 1." in done.stderr
    left = [*folder.glob("models/*/diverging/**/*"), *folder.glob("reports/*/*/diverging/**/*")]
    assert {path.name for path in left} == {
        "failed.json",
        "rows.json",
        "diverging_a",
        "diverging_b",
    }
    assert json.loads(
        (folder / "reports/episodes/os_interaction/diverging/rows.json").read_text()
    ) == [
        "diverging_b",
        "diverging_a",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["dvc", "gcd"])
def test_the_report_is_written_with_failed_rows(
    tmp_path: Path, reproduced: Path, driver: str
) -> None:
    folder = add_methods(reproduced, tmp_path / "repository")
    done = repro(folder, "--keep-going") if driver == "dvc" else run_module(folder, "gcd.repro")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "up to date" in repro(folder, "--dry").stdout  # a failed row is done, like the others
    log = folder / "logs/fit@os_interaction-diverging.log"
    said = done.stderr if driver == "dvc" else log.read_text()
    assert "os_interaction, diverging fails: The loss is nan at step 1." in said
    left = folder / "models/os_interaction/diverging"
    assert [path.name for path in left.iterdir()] == ["failed.json"]
    for name in ("scores", "costs", "probe_scores"):
        rows = json.loads((folder / f"reports/{name}.json").read_text())["os_interaction"]
        assert set(rows) == {"full_prompt", "too_large_1", "partly_1", "no_prompt", "seqkd", "gcd"}
    report = (folder / "reports/report.md").read_text()
    order = [*["full_prompt", "too_large_9", "too_large_1", "diverging_b", "diverging_a"]]
    order += ["partly_1", "partly_2", "partly_2_with_prompt", "no_prompt", "seqkd", "gcd"]
    for name in ("summary", *(f"os_interaction_{part}" for part in TABLES)):
        table = (folder / f"reports/tables/{name}.md").read_text()
        assert table in report
        lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
        assert [line[0] for line in lines] == order
        for row, *cells in lines:
            assert (set(cells) == {"failed"}) == (row in REASONS)
    text = " ".join(report.split())
    for row, reason in REASONS.items():
        assert f"- {row} failed: {escape(reason)}" in text
    assert "- no_prompt produced no valid action." in text


def test_without_the_prompted_teacher_nothing_goes_on(tmp_path: Path, reproduced: Path) -> None:
    folder = shutil.copytree(reproduced, tmp_path / "repository")
    shutil.rmtree(folder / "models/os_interaction/full_prompt")
    left = folder / "models/os_interaction/full_prompt/failed.json"
    left.parent.mkdir()
    left.write_text('{"reason": "out of memory"}\n')
    for stage in ("run_episodes", "probe_behaviour"):
        done = run_module(folder, f"stages.{stage}", "os_interaction", "full_prompt")
        assert (done.returncode, done.stderr) == (1, f"{stage}: out of memory\n")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_the_row_s_own(error: Exception) -> None:
    with pytest.raises(RowFailure, match=r"^out of memory: .+"), memory_is_the_row_s_own():
        raise error


def test_a_real_allocation_that_is_refused_is_one() -> None:
    with pytest.raises(RowFailure, match="DefaultCPUAllocator"), memory_is_the_row_s_own():
        torch.empty(2**62, dtype=torch.int8)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),  # no error of torch's
        UserError("No examples for the loss term `sft`."),
        KeyError("memory"),
    ],
)
def test_faults_and_bad_input_are_not(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory_is_the_row_s_own():
        raise error
    assert raised.value is error
