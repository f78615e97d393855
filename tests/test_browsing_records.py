"""Mind2Web's own files are read, checked, and cut into steps."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcd.core.errors import UserError
from gcd.core.records import SkippedSample
from gcd.tasks import web_browsing
from gcd.tasks.web_browsing.ranks import read_ranks
from gcd.tasks.web_browsing.records import Step, read_steps
from tests.browsing import SETTINGS, page_of

RANKS = {"task_one": {"0": 12, "1": 3, "2": 9, "3": 10}, "task_two": {"4": 0}}


def candidate(number: int) -> dict[str, Any]:
    return {"tag": "button", "attributes": "{}", "backend_node_id": str(number)}


def action(uid: str, positives: list[int], negatives: list[int]) -> dict[str, Any]:
    return {
        "action_uid": uid,
        "raw_html": "",
        "cleaned_html": page_of(5),
        "operation": {"op": "TYPE", "original_op": "TYPE", "value": "Oslo"},
        "pos_candidates": [candidate(number) for number in positives],
        "neg_candidates": [candidate(number) for number in negatives],
    }


def task() -> dict[str, Any]:
    return {
        "annotation_id": "task",
        "website": "shop",
        "domain": "Shopping",
        "subdomain": "General",
        "confirmed_task": "Buy a lamp",
        "action_reprs": ["[button]  Word1 -> CLICK", "[link]  Word4 -> CLICK"],
        "actions": [action("one", [0, 1], [2, 3]), action("two", [4], [])],
    }


def write(folder: Path, *records: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "test_task_0.json").write_text(json.dumps(list(records)))
    return folder


def test_a_step_has_the_ten_best_ranked_and_what_was_done_before(tmp_path: Path):
    first, second = read_steps(write(tmp_path, task()), RANKS)
    assert isinstance(first, Step)
    assert isinstance(second, Step)
    assert (first.positives, first.negatives) == (["1"], ["2"])
    assert (first.operation, first.value) == ("TYPE", "Oslo")
    assert first.previous_actions == []
    assert second.previous_actions == ["[button]  Word1 -> CLICK"]


def test_a_positive_outside_the_first_ten_is_not_skipped(tmp_path: Path):
    ranks = {**RANKS, "task_two": {"4": 10}}
    _, second = read_steps(write(tmp_path, task()), ranks)
    assert isinstance(second, Step)
    assert second.positives == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pos_candidates": []}, "no positive candidate"),
        ({"cleaned_html": "<html><br></html>"}, "not well-formed"),
        ({"cleaned_html": '<?xml version="1.0" encoding="ascii"?><html/>'}, "encoding declaration"),
        ({"cleaned_html": "<html/>"}, "cleaned_html does not have element 1"),
        ({"action_uid": "three"}, "the ranks file does not have this step"),
        ({"neg_candidates": [candidate(7)]}, "the ranks file does not have element 7"),
    ],
)
def test_a_step_that_cannot_be_played_is_skipped_with_the_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
):
    record = task()
    record["actions"][0] |= change
    first, second = read_steps(write(tmp_path, record), RANKS)
    assert isinstance(first, SkippedSample)
    assert reason in first.reason
    assert isinstance(second, Step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"website": None}, r"test_task_0.json, record 1, website: .*valid string"),
        ({"actions": [{}]}, r"record 1, actions.0.action_uid: .*Field required"),
        ({"action_reprs": []}, r"record 1: expected as many action_reprs as actions; got 0 and 2"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        list(read_steps(write(tmp_path, task(), task() | change), RANKS))


def test_a_folder_without_records_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none there"):
        list(read_steps(tmp_path, RANKS))
    (tmp_path / "test.json").write_text("[")
    with pytest.raises(UserError, match=r"test.json: expected JSON"):
        list(read_steps(tmp_path, RANKS))
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(UserError, match=r"test.json, as a whole: expected Mind2Web's schema"):
        list(read_steps(tmp_path, RANKS))


def save_npz(path: Path) -> None:
    rows = [(step, *pair) for step, ranks in RANKS.items() for pair in ranks.items()]
    steps, elements, ranks = zip(*rows, strict=True)
    np.savez(path, steps=steps, elements=elements, ranks=ranks)


def test_the_three_forms_of_ranks_hold_the_same(tmp_path: Path):
    both = {"ranks": RANKS, "scores": {"task_two": {"4": 1.5}}}
    (tmp_path / "plain.json").write_text(json.dumps(RANKS))
    (tmp_path / "both.json").write_text(json.dumps(both))
    save_npz(tmp_path / "ranks.npz")
    numbers = {
        "ranks": {
            step: {node_id: np.int64(rank) for node_id, rank in ranks.items()}
            for step, ranks in RANKS.items()
        },
        "scores": {"task_two": {"4": np.float32(1.5), "5": np.float64(0.5)}},
    }
    for protocol in (2, 4, 5):
        (tmp_path / f"plain{protocol}.pkl").write_bytes(pickle.dumps(both, protocol))
        (tmp_path / f"numpy{protocol}.pkl").write_bytes(pickle.dumps(numbers, protocol))
    for path in tmp_path.iterdir():
        assert read_ranks(path) == RANKS, path.name


class Evil:
    """A pickle of it runs a command when it is loaded the usual way."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, protocol: int):
    touched = tmp_path / "touched"
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"ranks": {"task_two": {"4": Evil(touched)}}}, protocol))
    with pytest.raises(UserError, match=r"scores.pkl: expected .*; got (posix|nt)\.system, which"):
        read_ranks(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "content", [{1, 2}, complex(1), Path("x"), np.arange(3), np.float64, print, eval]
)
def test_other_classes_are_refused_by_name(tmp_path: Path, content: Any):
    path = tmp_path / "scores.pkl"
    path.write_bytes(pickle.dumps({"ranks": content}, 2))
    with pytest.raises(UserError, match=r"got [\w.]+\.\w+, which is not loaded"):
        read_ranks(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ranks.json", b"{", "expected JSON"),
        ("ranks.json", b'{"step": {"1": "first"}}', "step.1: expected"),
        ("ranks.json", b"[]", "the whole file: expected"),
        ("ranks.pkl", b"abc", "not a readable pickle"),
        ("ranks.pkl", pickle.dumps({"ranks": RANKS})[:-9], "not a readable pickle"),
        ("ranks.npz", b"abc", "expected the arrays steps, elements, ranks"),
        ("ranks.csv", b"", "expected ranks as .json, .npz, .pkl; got '.csv'"),
    ],
)
def test_bad_ranks_are_named(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_ranks(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_ranks(tmp_path / "none.json")


def test_real_files_become_the_test_samples(tmp_path: Path):
    folder, out = write(tmp_path / "data", task()), tmp_path / "out"
    (tmp_path / "ranks.json").write_text(json.dumps({"ranks": {"task_one": RANKS["task_one"]}}))
    named = {
        "data": "files",
        "data_path": str(folder),
        "ranks_path": str(tmp_path / "ranks.json"),
    }
    settings = SETTINGS.model_copy(update=named)
    skipped = web_browsing.write_samples(settings, out)
    assert [sample.index for sample in skipped] == ["task_two"]
    (sample,) = web_browsing.read_samples(out / "test.jsonl")
    assert (sample.index, sample.problem) == ("task_one", "Buy a lamp | None")
    assert sample.groups == {"domain": "Shopping", "website": "shop"}
    assert len(web_browsing.read_samples(out / "development.jsonl")) == settings.development.count
    with web_browsing.start(sample, settings) as environment:
        assert "Task: Buy a lamp\nPrevious actions:\nNone\n" in environment.messages[0].content


def test_missing_ranks_and_steps_that_cannot_be_played(tmp_path: Path):
    with pytest.raises(UserError, match="`ranks_path`"):
        web_browsing.write_samples(SETTINGS.model_copy(update={"data": "files"}), tmp_path)
    named = {"data": "files", "data_path": str(write(tmp_path / "data", task()))}
    (tmp_path / "ranks.json").write_text("{}")
    named["ranks_path"] = str(tmp_path / "ranks.json")
    with pytest.raises(UserError, match="none of 2 steps can be played"):
        web_browsing.write_samples(SETTINGS.model_copy(update=named), tmp_path)
