"""What each row of the results table left on disk: its agent, its episodes, its replies.

`run_episodes` writes them to reports/episodes/TASK/METHOD/ROW/, and the method's rows in their
order to reports/episodes/TASK/METHOD/rows.json; everything after it reads them here. A row that
failed left nothing but the reason. Rows are only comparable over the same samples, so reading
checks that.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gcd.core.errors import UserError
from gcd.core.failures import read_failure
from gcd.core.records import (
    FULL_PROMPT,
    AgentRecord,
    Episode,
    PromptRecall,
    StateReply,
    read_records,
)


@dataclass(frozen=True)
class Row:
    """The records of one row of one task."""

    method: str
    agent: AgentRecord
    episodes: list[Episode]
    state_replies: list[StateReply]
    recall: list[PromptRecall]


@dataclass(frozen=True)
class FailedRow:
    """A row that could not be trained or played."""

    method: str
    reason: str


Rows = dict[str, Row | FailedRow]  # of one task, by name


def read_rows(folder: Path, methods: Collection[str]) -> dict[str, Rows]:
    """Read `folder`/TASK/METHOD/ROW/ of `methods` into {task: {row: Row or FailedRow}}.

    Folders of other methods, which another profile left, are none of the run's. The rows of a
    method come in the order of its rows.json. Raises UserError if there is nothing, if a file is
    bad, if a task has no row `full_prompt` that played, if two methods of a task fill the same row,
    or if its rows did not play the same samples.
    """
    tasks: dict[str, Rows] = {}
    for path in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        task, method = path.relative_to(folder).parts
        if method not in methods:
            continue
        rows = tasks.setdefault(task, {})
        for name in _read_names(path / "rows.json"):
            if name in rows:
                raise UserError(
                    f"{path}: expected one method to fill row {name!r} of task {task!r}, but "
                    f"{rows[name].method!r} fills it too. Rename a row of one of them."
                )
            rows[name] = _read_row(path / name, method)
    if not tasks:
        raise UserError(
            f"{folder}: expected episodes in TASK/METHOD/ROW/, found none. Run `dvc repro`."
        )
    for task, rows in tasks.items():
        check_same_samples(task, played(rows))
    return tasks


def played(rows: Rows) -> dict[str, Row]:
    """The rows that did not fail."""
    return {name: row for name, row in rows.items() if isinstance(row, Row)}


def failures(rows: Rows) -> dict[str, str]:
    """{row: reason} of those that did."""
    return {name: row.reason for name, row in rows.items() if isinstance(row, FailedRow)}


def _read_names(path: Path) -> list[str]:
    """A method's rows.json; raises UserError if it is missing or no list of names."""
    try:
        return TypeAdapter(list[str]).validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except ValidationError as error:
        raise UserError(
            f"{path}: expected a JSON list of the method's rows; {error.errors()[0]['msg']}. "
            "Delete the file and run `dvc repro`."
        ) from error


def _read_row(folder: Path, method: str) -> Row | FailedRow:
    reason = read_failure(folder)
    if reason is not None:
        return FailedRow(method, reason)
    return Row(
        method=method,
        agent=read_agent(folder / "agent.json"),
        episodes=read_records(folder / "episodes.jsonl", Episode),
        state_replies=read_records(folder / "state_replies.jsonl", StateReply),
        recall=read_records(folder / "prompt_recall.jsonl", PromptRecall),
    )


def read_agent(path: Path) -> AgentRecord:
    """Read one agent.json; raises UserError if it is missing or not an AgentRecord."""
    try:
        return AgentRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Run `dvc repro` to make it.") from error
    except ValidationError as error:
        raise UserError(
            f"{path}: expected one AgentRecord as JSON; {error.errors()[0]['msg']}. "
            "Delete the file and run `dvc repro`."
        ) from error


def check_same_samples(task: str, rows: dict[str, Row]) -> None:
    """Raise UserError unless all rows of `task` hold the same samples and the same states, once.

    A row that stopped early would otherwise be scored over fewer, perhaps easier, samples.
    """
    if FULL_PROMPT not in rows:
        raise UserError(
            f"{task}: expected a row {FULL_PROMPT!r}, which the others are measured by; found "
            f"{sorted(rows)}. Put {FULL_PROMPT!r} under `methods:` in params.yaml."
        )
    teacher = rows[FULL_PROMPT]
    if not teacher.episodes:
        raise UserError(f"{task}, row {FULL_PROMPT!r}: no episodes. Run `dvc repro`.")
    expected_samples = [episode.index for episode in teacher.episodes]
    expected_states = [str(reply.index) for reply in teacher.state_replies]
    for name, row in rows.items():
        samples = [episode.index for episode in row.episodes]
        states = [str(reply.index) for reply in row.state_replies]
        _check_same(f"{task}, row {name!r}: samples", samples, expected_samples)
        _check_same(f"{task}, row {name!r}: teacher states", states, expected_states)


def _check_same(what: str, found: list[str], expected: list[str]) -> None:
    repeated = sorted({index for index in found if found.count(index) > 1})
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    if repeated or missing or extra:
        named = {"missing": missing, "extra": extra, "repeated": repeated}
        differs = "; ".join(
            f"{word} {', '.join(indexes[:5])}{' ...' if len(indexes) > 5 else ''} ({len(indexes)})"
            for word, indexes in named.items()
            if indexes
        )
        raise UserError(
            f"{what} differ from those of row {FULL_PROMPT!r}: {differs}. "
            "Run `dvc repro` so that every row plays all of them."
        )
