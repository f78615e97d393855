"""Mind2Web's records, and the steps they are cut into: one step of a task is one sample.

Schema: Mind2Web's train_*.json and test_*_*.json. Cutting follows `get_data_split` and `get_data`
of AgentBench v0.2 (src/server/tasks/mind2web/): only elements ranked 0 to 9 take part.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gcd.core.errors import UserError
from gcd.core.records import Record, SkippedSample
from gcd.tasks.web_browsing.page import node_ids, parse_page
from gcd.tasks.web_browsing.ranks import Ranks

TOP_RANKS = 10  # AgentBench's `topk`


class _Mind2Web(BaseModel):
    """A part of a Mind2Web record: exact types, and fields that we do not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Operation(_Mind2Web):
    """CLICK (also for hovering and Enter), TYPE or SELECT; `value` is empty for CLICK."""

    op: str = Field(pattern="^(CLICK|TYPE|SELECT)$")
    value: str


class Candidate(_Mind2Web):
    """An element of the page."""

    backend_node_id: str


class RecordedAction(_Mind2Web):
    """One step of a person who did the task."""

    action_uid: str
    operation: Operation
    cleaned_html: str
    pos_candidates: list[Candidate]
    neg_candidates: list[Candidate]


class RecordedTask(_Mind2Web):
    """One task on one web site; `action_reprs` describe its actions in words."""

    annotation_id: str
    website: str
    domain: str
    confirmed_task: str
    action_reprs: list[str]
    actions: list[RecordedAction]


class Step(Record):
    """One step with all that playing and judging it needs.

    `id` is Mind2Web's "<annotation_id>_<action_uid>". `positives` and `negatives` are the
    `backend_node_id`s ranked 0 to 9, in the record's order.
    """

    id: str
    website: str
    domain: str
    task: str
    previous_actions: list[str]
    operation: str
    value: str
    html: str
    positives: list[str]
    negatives: list[str]


class BrowsingSample(Record):
    """One step, with the index and labels it got here. `problem` is one line."""

    index: str
    problem: str
    groups: dict[str, str]
    step: Step


_TASKS = TypeAdapter(list[RecordedTask])


def check_tasks(content: Any, path: Path) -> list[RecordedTask]:
    """Raises UserError that names `path` and the first bad record's place in it."""
    try:
        tasks = _TASKS.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place, *keys = [*first["loc"], ""]
        where = f"record {place}, {'.'.join(map(str, keys[:-1])) or 'as a whole'}"
        raise UserError(
            f"{path}, {where if first['loc'] else 'as a whole'}: expected Mind2Web's schema; "
            f"{first['msg']}."
        ) from error
    for place, task in enumerate(tasks):
        if len(task.action_reprs) != len(task.actions):
            raise UserError(
                f"{path}, record {place}: expected as many action_reprs as actions; got "
                f"{len(task.action_reprs)} and {len(task.actions)}."
            )
    return tasks


def read_steps(folder: Path, ranks: Ranks) -> Iterator[Step | SkippedSample]:
    """All steps of all `*.json` of `folder`, in the order of their names; see `cut_steps`."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(
            f"{folder}: expected a folder with Mind2Web's *.json files (`data_path`); none there."
        )
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: expected JSON; {error}.") from error
        for task in check_tasks(content, path):
            yield from cut_steps(task, ranks)


def cut_steps(task: RecordedTask, ranks: Ranks) -> Iterator[Step | SkippedSample]:
    """The steps of one task; one that cannot be played comes as a SkippedSample.

    A step whose positives are all ranked 10 or lower is not skipped: the benchmark counts it as
    failed.
    """
    for place, action in enumerate(task.actions):
        step_id = f"{task.annotation_id}_{action.action_uid}"
        reason = _unplayable(action, ranks.get(step_id))
        if reason:
            yield SkippedSample(index=step_id, reason=reason)
            continue
        step_ranks = ranks[step_id]
        yield Step(
            id=step_id,
            website=task.website,
            domain=task.domain,
            task=task.confirmed_task,
            previous_actions=task.action_reprs[:place],
            operation=action.operation.op,
            value=action.operation.value,
            html=action.cleaned_html,
            positives=_top(action.pos_candidates, step_ranks),
            negatives=_top(action.neg_candidates, step_ranks),
        )


def _top(candidates: list[Candidate], ranks: dict[str, int]) -> list[str]:
    ids = [candidate.backend_node_id for candidate in candidates]
    return [node_id for node_id in ids if ranks[node_id] < TOP_RANKS]


def _unplayable(action: RecordedAction, ranks: dict[str, int] | None) -> str | None:
    """Why the step cannot be played; None if it can."""
    if not action.pos_candidates:
        return "no positive candidate: the right element is not in the page"
    if ranks is None:
        return "the ranks file does not have this step"
    candidates = [*action.pos_candidates, *action.neg_candidates]
    unranked = [one.backend_node_id for one in candidates if one.backend_node_id not in ranks]
    if unranked:
        return f"the ranks file does not have element {unranked[0]}"
    try:
        present = node_ids(parse_page(action.cleaned_html))
    except ValueError as error:
        return f"cleaned_html: {error}"
    lost = [node_id for node_id in _top(candidates, ranks) if node_id not in present]
    return f"cleaned_html does not have element {lost[0]}" if lost else None
