"""The report: the same bytes twice, and no text of a model can change the page's structure."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from gcd.comparisons import compare_tasks
from gcd.core.errors import UserError
from gcd.core.params import check_sections, load_file
from gcd.core.records import (
    FULL_PROMPT,
    Action,
    AgentRecord,
    Episode,
    PromptRecall,
    SkippedSample,
    StateReply,
    Turn,
    read_json,
    write_records,
)
from gcd.cost import ModelRecord, cost_tasks
from gcd.report.markdown import Sections, render_left_out, write_report
from gcd.report.results import TaskResults, loss_terms, order_rows
from gcd.report.tables import data_table, left_out_table
from gcd.report.transcripts import choose_samples
from gcd.rows import Row
from gcd.scoring import Bootstrap, score_tasks
from tests.test_report_text import HOSTILE
from tests.tiny import ARCHITECTURE

MODEL = ModelRecord(
    source="tiny <b>model</b>",
    architecture=ARCHITECTURE,
    parameters=12_345_678,
)
SCORE = check_sections(load_file(), "score").score
SECTIONS = Sections(
    experiments_in_summary="",
    compressed="",
    behaviour="",
    further="",
    experiments="",
    measured="",
    provenance="## Provenance",
)
ROWS = [FULL_PROMPT, "no_prompt", "seqkd", "gcd"]


def make_episode(row: str, index: int, score: float, reply: str, tier: str) -> Episode:
    turns = [
        Turn(
            reply=reply,
            context_tokens=12,
            reply_tokens=6,
            complete=True,
            continues=False,
            action=Action(kind="bash", content="ls"),
            observation=reply,
        ),
        Turn(
            reply="done",
            context_tokens=40,
            reply_tokens=3,
            complete=False,
            continues=False,
            action=None,
            observation=None,
        ),
    ]
    return Episode(
        task="os",
        row=row,
        index=f"{index}",
        groups={"tier": tier, "family": "a|b"},
        problem=reply,
        status="completed",
        score=score,
        measures={},
        details={},
        prompt_tokens=0,
        turns=turns,
        error=None,
    )


def make_row(row: str, scores: list[float], replies: list[str]) -> Row:
    """The last sample is hard, the others are easy."""
    prompt = 100 if row == FULL_PROMPT else 0
    tiers = ["easy"] * (len(scores) - 1) + ["hard"]
    return Row(
        method=row,
        agent=AgentRecord(
            row=row,
            deployment="base",
            prompt_tokens=prompt,
            adapter_parameters=0,
            bytes_to_ship=6 * prompt,
        ),
        episodes=[
            make_episode(row, index, score, replies[index % len(replies)], tiers[index])
            for index, score in enumerate(scores)
        ],
        state_replies=[
            StateReply(
                index=0,
                reply="r",
                action=None,
                teacher_action=Action(kind="bash", content="ls"),
            )
        ],
        recall=[PromptRecall(index=0, text=replies[0], edit_similarity=0.25, rouge_l=0.125)],
    )


LEFT_OUT = pd.DataFrame(
    [{"Task": "os", "What": "not played", "Reason": "needs <apt>", "Samples": 2, "First": "s-1"}]
)


def make_results(replies: list[str]) -> TaskResults:
    records = {
        "gcd": make_row("gcd", [0, 1, 0, 0], replies),
        FULL_PROMPT: make_row(FULL_PROMPT, [1, 1, 1, 0], replies),
        "no_prompt": make_row("no_prompt", [0, 0, 0, 0], replies),
        "seqkd": make_row("seqkd", [0, 1, 1, 0], replies),
    }
    steps = pd.DataFrame(
        {
            "step": [1, 2, 3],
            "epoch": [0.5, 1.0, 1.5],
            "loss": [2.0, 1.0, 0.5],
            "sft": [2.0, 1.0, 0.5],
            "learning_rate": [1e-4] * 3,
            "tokens": [10, 20, 30],
        }
    )
    bootstrap = Bootstrap(0.95, 50, 0)
    scores = score_tasks({"os": records}, bootstrap)
    data = {"os": 1_000}
    costs = cost_tasks(MODEL.architecture, {"os": records}, Path("nowhere"), data, "float32")
    return TaskResults(
        task="os",
        rows=order_rows(records, ROWS),
        records=records,
        failures={},
        scores=scores["os"],
        compared=compare_tasks({"os": records}, "gcd", bootstrap, 99)["os"],
        costs=costs["os"],
        losses={"seqkd": steps, "gcd": steps.assign(prompt_generation=[1.0, float("nan"), 0.1])},
    )


def write(folder: Path, replies: list[str]) -> dict[str, bytes]:
    """Write the report; returns {file: bytes}."""
    data = pd.DataFrame([{"Task": "os", "Data": "inputs", "Kept": 3}])
    write_report([make_results(replies)], data, LEFT_OUT, MODEL, SCORE, SECTIONS, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def structure(text: str) -> list[str]:
    """The page's block structure as a Markdown renderer sees it, without the texts."""
    parser = MarkdownIt("commonmark").enable("table")
    return [token.type for token in parser.parse(text)]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", ["ls"]), write(tmp_path / "b", ["ls"])
    assert first == second
    assert set(first) == {
        "report.md",
        "report.html",
        "figures/summary.png",
        "figures/summary.svg",
        "tables/data.csv",
        "tables/data.md",
        "tables/os_break_even.md",
        "tables/os_costs.csv",
        "tables/os_costs.md",
        "tables/os_relative_costs.md",
        "tables/os_rates.csv",
        "tables/os_results.csv",
        "tables/os_results.md",
        "tables/os_training.csv",
        "tables/os_training.md",
        "tables/summary.md",
        *(
            f"figures/os_{name}.{kind}"
            for name in ("success", "success_against_cost", "loss")
            for kind in ("svg", "png")
        ),
    }


def test_every_figure_that_is_linked_exists(tmp_path: Path) -> None:
    files = write(tmp_path, ["ls"])
    links = re.findall(r"!\[.+?\]\((.+?)\)", files["report.md"].decode())
    assert len(links) == 4
    assert set(links) <= set(files)


def test_hostile_replies_do_not_change_the_structure(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", ["ls"])["report.md"].decode()
    hostile = write(tmp_path / "hostile", HOSTILE)["report.md"].decode()
    assert structure(hostile) == structure(plain)
    assert "html_block" not in structure(hostile)
    inline = MarkdownIt("commonmark").enable("table").parse(hostile)
    children = [child.type for token in inline for child in token.children or []]
    assert "html_inline" not in children


def test_rows_follow_the_methods() -> None:
    results = make_results(["ls"])
    assert results.rows == ROWS
    assert order_rows(results.records, ["gcd", FULL_PROMPT]) == ["gcd", FULL_PROMPT]
    with pytest.raises(UserError, match="expected 'full_prompt' under `methods`"):
        order_rows(results.records, ["gcd"])


def test_transcripts_show_different_things() -> None:
    samples = choose_samples(make_results(["ls"]).records)
    chosen = [played and played["gcd"].index for _, played in samples]
    # 1: all but no_prompt succeed on sample 1; 2: gcd first differs on 0; 3: the hard one is 3.
    assert chosen == ["1", "0", "3"]


def test_a_rule_without_its_rows_chooses_nothing() -> None:
    rows = {FULL_PROMPT: make_results(["ls"]).records[FULL_PROMPT]}
    chosen = [played is not None for _, played in choose_samples(rows)]
    assert chosen == [False, False, True]


def test_sentences_follow_the_numbers(tmp_path: Path) -> None:
    text = " ".join(write(tmp_path, ["ls"])["report.md"].decode().split())
    assert "4 test samples." in text
    assert "the whole interval lies below 100 % for no_prompt" in text
    assert "tiny \\<b\\>model\\</b\\>) has 12.3 million parameters." in text


def test_the_weighted_sum_is_drawn_only_beside_several_terms() -> None:
    losses = make_results(["ls"]).losses
    assert loss_terms(losses["seqkd"]) == ["sft"]
    assert loss_terms(losses["gcd"]) == ["sft", "prompt_generation", "loss"]


def test_what_was_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "os").mkdir()
    skipped = [SkippedSample(index=f"s-{n}", reason="needs apt") for n in range(3)]
    write_records(tmp_path / "os" / "skipped.jsonl", skipped)
    row = make_row("gcd", [1, 0, 0], ["ls"])
    row.episodes[1] = row.episodes[1].model_copy(
        update={"status": "task error", "error": "boom", "index": "broken"}
    )
    assert left_out_table(tmp_path, {"os": {"gcd": row}}).to_dict("records") == [
        {
            "Task": "os",
            "What": "not played",
            "Reason": "needs apt",
            "Samples": 3,
            "First": "s-0",
        },
        {
            "Task": "os",
            "What": "gcd: task error, scored 0",
            "Reason": "boom",
            "Samples": 1,
            "First": "broken",
        },
    ]
    (tmp_path / "os" / "skipped.jsonl").write_text("")
    none = left_out_table(tmp_path, {"os": {"gcd": make_row("gcd", [1], ["ls"])}})
    assert "none broke" in render_left_out(none)


def test_data_counts(tmp_path: Path) -> None:
    assert data_table(tmp_path).empty
    path = tmp_path / "os" / "paired_outputs_counts.json"
    path.parent.mkdir()
    path.write_text('{"kept": 5, "rejected": {"too long": 2, "empty": 1}}', encoding="utf-8")
    assert data_table(tmp_path).to_dict("records") == [
        {
            "Task": "os",
            "Data": "paired outputs",
            "Kept": 5,
            "Rejected": 3,
            "Reasons": "empty: 1; too long: 2",
        }
    ]
    path.write_text('{"kept": 5}', encoding="utf-8")
    with pytest.raises(UserError, match="rejected"):
        data_table(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="expected JSON"):
        read_json(path)


def test_stages_without_a_model_do_not_import_torch() -> None:
    # Importing it costs seconds; these two need none of it.
    code = (
        "import sys, stages.score, stages.report;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
