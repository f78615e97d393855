"""What each row of the results table left on disk: its agent, its episodes, its state replies.

`run_episodes` writes them to reports/episodes/TASK/METHOD/ROW/; everything after it reads them
here. Rows are only comparable over the same samples, so reading checks that.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gcd.core.errors import UserError
from gcd.core.records import AgentRecord, Episode, StateReply, read_records

FULL_PROMPT = "full_prompt"  # the row of the prompted teacher, which the others are measured by


@dataclass(frozen=True)
class Row:
    """The records of one row of one task."""

    method: str
    agent: AgentRecord
    episodes: list[Episode]
    state_replies: list[StateReply]


def read_rows(folder: Path) -> dict[str, dict[str, Row]]:
    """Read `folder`/TASK/METHOD/ROW/ into {task: {row: Row}}.

    Raises UserError if there is nothing, if a file is bad, if a task has no row `full_prompt`, if
    two methods of a task fill the same row, or if its rows did not play the same samples.
    """
    tasks: dict[str, dict[str, Row]] = {}
    for path in sorted(path for path in folder.glob("*/*/*") if path.is_dir()):
        task, method, name = path.relative_to(folder).parts
        rows = tasks.setdefault(task, {})
        if name in rows:
            raise UserError(
                f"{path}: expected one method to fill row {name!r} of task {task!r}, but "
                f"{rows[name].method!r} fills it too. Delete the folder of the method that is gone."
            )
        rows[name] = Row(
            method=method,
            agent=read_agent(path / "agent.json"),
            episodes=read_records(path / "episodes.jsonl", Episode),
            state_replies=read_records(path / "state_replies.jsonl", StateReply),
        )
    if not tasks:
        raise UserError(
            f"{folder}: expected episodes in TASK/METHOD/ROW/, found none. Run `dvc repro`."
        )
    for task, rows in tasks.items():
        check_same_samples(task, rows)
    return tasks


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
