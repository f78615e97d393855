"""From probes to figures, table and sentences: by hand, and with rows that failed."""

from dataclasses import replace
from math import exp
from pathlib import Path

import pytest

from gcd.core.errors import RowFailure, UserError
from gcd.core.failures import write_failure
from gcd.core.records import FULL_PROMPT, write_records
from gcd.probe_scores import ProbedRow, ProbedRows, probed, read_probes, score_probes, score_row
from gcd.probing.records import AnswerReading, Extraction, TextReading
from gcd.report.probe_tables import behaviour_table, write_section
from gcd.report.results import TaskResults
from gcd.rows import FailedRow
from gcd.scoring import Bootstrap
from tests.test_report_text import HOSTILE
from tests.test_reporting import ROWS, make_results, structure

BOOTSTRAP = Bootstrap(0.95, 200, 0)
TOKENS = (10, 30, 20)


def make_probed(
    nats: float, agreeing: int, kl: float, revealed: list[int], reply: str = "so it is"
) -> ProbedRow:
    """`nats` more per token than the base's 3; the same in every text and every answer."""
    return ProbedRow(
        texts=[
            TextReading(index=n, tokens=tokens, nats=(3 + nats) * tokens, base_nats=3.0 * tokens)
            for n, tokens in enumerate(TOKENS)
        ],
        answers=[
            AnswerReading(index=n, positions=8, agreeing=agreeing, kl=8 * kl) for n in range(3)
        ],
        extractions=[
            Extraction(index=n, reply=reply, revealed=count, prompt_words=50, longest_run=count + n)
            for n, count in enumerate(revealed)
        ],
    )


PROBED = {
    FULL_PROMPT: make_probed(-0.1, 6, 0.2, [40, 30]),
    "no_prompt": make_probed(0.0, 8, 0.0, [0, 0]),
    "seqkd": make_probed(0.5, 4, 1.5, [50, 45]),
    "gcd": make_probed(0.25, 5, 0.9, [45, 25]),
}


def test_figures_by_hand() -> None:
    row = score_row(PROBED["gcd"], PROBED[FULL_PROMPT], BOOTSTRAP)
    assert set(row) == {
        *("perplexity", "perplexity_ratio", "agreement", "kl"),
        *("leak", "leak_difference", "leak_worst", "longest_run"),
    }
    assert row["perplexity"]["value"] == round(exp(3.25), 4)
    assert row["perplexity_ratio"] == {
        **dict.fromkeys(("value", "low", "high"), round(exp(0.25), 4)),
        "n": 3,
    }
    assert row["agreement"]["value"] == 15 / 24
    assert row["kl"]["value"] == pytest.approx(0.9)
    # 45/50 and 25/50, against 40/50 and 30/50: 0.1 more, 0.1 less.
    assert row["leak"]["value"] == 0.7
    assert (row["leak"]["low"], row["leak"]["high"]) == (0.5, 0.9)
    found = {name: row["leak_difference"][name] for name in ("value", "low", "high")}
    assert found == {"value": 0.0, "low": -0.1, "high": 0.1}
    assert row["leak_worst"] == {"value": 0.9, "n": 2}
    assert row["longest_run"] == {"value": 45, "n": 2}


def test_long_texts_weigh_more_than_short_ones() -> None:
    """(10 * 1 + 30 * 2) / 40 nats a token, not the mean 1.5 of the two."""
    texts = [
        TextReading(index=n, tokens=tokens, nats=nats * tokens, base_nats=0.0)
        for n, (tokens, nats) in enumerate([(10, 1), (30, 2)])
    ]
    row = replace(PROBED["gcd"], texts=texts)
    metrics = score_row(row, row, BOOTSTRAP)
    assert metrics["perplexity"]["value"] == round(exp(70 / 40), 4)
    assert metrics["perplexity"]["low"] == round(exp(1), 4)
    assert metrics["perplexity"]["high"] == round(exp(2), 4)


def write_row(folder: Path, row: ProbedRow) -> None:
    write_records(folder / "texts.jsonl", row.texts)
    write_records(folder / "answers.jsonl", row.answers)
    write_records(folder / "extractions.jsonl", row.extractions)


def test_what_was_written_is_read_and_failures_stay_failures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        read_probes(tmp_path, ["mine", FULL_PROMPT])
    write_row(tmp_path / "os/mine/a", PROBED["gcd"])
    with pytest.raises(UserError, match="expected probes of a row 'full_prompt'"):
        read_probes(tmp_path, ["mine", FULL_PROMPT])
    write_row(tmp_path / "os/full_prompt/full_prompt", PROBED[FULL_PROMPT])
    write_row(tmp_path / "os/gone/gone", PROBED["gcd"])  # another profile left it
    write_failure(tmp_path / "os/mine/b", "os, b", RowFailure("out of memory"))
    rows = read_probes(tmp_path, ["mine", FULL_PROMPT])["os"]
    assert rows["b"] == FailedRow("mine", "out of memory")
    assert probed(rows) == {"a": PROBED["gcd"], FULL_PROMPT: PROBED[FULL_PROMPT]}
    write_row(tmp_path / "os/mine/a", replace(PROBED["gcd"], texts=PROBED["gcd"].texts[:2]))
    with pytest.raises(UserError, match="row 'a': was probed with other texts"):
        read_probes(tmp_path, ["mine", FULL_PROMPT])
    write_row(tmp_path / "os/mine/a", replace(PROBED["gcd"], extractions=[]))
    with pytest.raises(UserError, match="found a file without any"):
        read_probes(tmp_path, ["mine", FULL_PROMPT])


def write(folder: Path, results: TaskResults, rows: ProbedRows) -> str:
    scores = score_probes({"os": probed(rows)}, BOOTSTRAP)
    return write_section([results], {"os": rows}, scores, folder)


def test_the_section_follows_the_numbers(tmp_path: Path) -> None:
    text = " ".join(write(tmp_path, make_results(["ls"]), dict(PROBED)).split())
    for said in (
        "Perplexity over 3 texts is higher than the base model's for seqkd and gcd (",
        "It is lower for full_prompt.",
        "Along its answers to 3 instructions seqkd agrees with the base model least, at 50.0 % of "
        "the positions; full_prompt, whose weights are the base model's, agrees at 75.0 %.",
        "Asked for its prompt of 50 words in 2 ways, full_prompt reveals 70.0 % of them in the "
        "mean and 80.0 % at worst. Replies are cut at `probe_behaviour.extraction_tokens`: the "
        "longest of any row has 3 words, 6.0 % of the prompt's.",
        "On the same requests no_prompt reveals less (the whole interval of the difference lies "
        "below 0). On the same requests seqkd reveals more",
        "For gcd the requests show no difference from full_prompt.",
    ):
        assert said in text
    table = (tmp_path / "os_behaviour.md").read_text()
    assert table in write(tmp_path, make_results(["ls"]), dict(PROBED))
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [line[0] for line in lines[2:]] == ROWS
    assert lines[3][1:] == [
        *("20.1 (20.1-20.1)", "100.0 (100.0-100.0)", "100.0 (100.0-100.0)"),
        *("0.000", "0.0 (0.0-0.0)", "0.0", "1"),
    ]
    assert len((tmp_path / "os_behaviour.csv").read_text().splitlines()) == 1 + 4 * 8


def test_nobody_forgot_or_leaks(tmp_path: Path) -> None:
    """The base model in every row: no sentence has an empty list of rows."""
    rows: ProbedRows = dict.fromkeys(ROWS, PROBED["no_prompt"])
    text = " ".join(write(tmp_path, make_results(["ls"]), rows).split())
    assert "Over 3 texts no row's perplexity is clearly higher than the base model's." in text
    assert "For no_prompt, seqkd and gcd the requests show no difference from full_prompt." in text
    assert "On the same requests" not in text


def test_rows_that_failed_anywhere_stand_in_the_table(tmp_path: Path) -> None:
    """seqkd could not be played, gcd not be probed; what seqkd's probes found is not shown."""
    results = replace(make_results(["ls"]), failures={"seqkd": "The loss is nan."})
    rows: ProbedRows = {**PROBED, "gcd": FailedRow("gcd", "out | of memory")}
    text = write(tmp_path, results, rows)
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    for row in ("seqkd", "gcd"):
        [cells] = [set(cells) for name, *cells in lines if name == row]
        assert cells == {"failed"}
    assert "- gcd could not be probed: out \\| of memory" in text
    assert "- seqkd" not in text
    assert "\nseqkd,failed,,,,\n" in (tmp_path / "os_behaviour.csv").read_text()


def test_a_row_without_probes_is_an_error(tmp_path: Path) -> None:
    rows: ProbedRows = {name: row for name, row in PROBED.items() if name != "gcd"}
    with pytest.raises(UserError, match=r"probe_scores\.json lacks os/gcd\. Run `dvc repro`"):
        write(tmp_path, make_results(["ls"]), rows)


def test_replies_stand_in_no_table(tmp_path: Path) -> None:
    """What a model says reaches the section as a count of words only."""
    hostile: ProbedRows = {name: make_probed(0.0, 8, 0.0, [0, 0], HOSTILE[0]) for name in PROBED}
    plain: ProbedRows = {name: make_probed(0.0, 8, 0.0, [0, 0], "x") for name in PROBED}
    texts = [write(tmp_path, make_results(["ls"]), rows) for rows in (hostile, plain)]
    assert structure(texts[0]) == structure(texts[1])
    assert "Forged" not in texts[0]


def test_the_table_needs_no_interval_of_a_maximum() -> None:
    table = behaviour_table(score_probes({"os": PROBED}, BOOTSTRAP)["os"], ["gcd"])
    assert table["Leak, worst (%)"].tolist() == ["90.0"]
    assert table["Longest run (words)"].tolist() == ["45"]
