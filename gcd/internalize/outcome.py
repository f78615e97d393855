"""What a run came to: the record that the report is written from, exports/<name>/record.json.

An update reads the record and the replies of the version before.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from gcd.core.errors import UserError
from gcd.core.records import Record, read_records, write_records, write_text

RECORD, REPLIES = "record.json", "replies.jsonl"
Estimates = dict[str, dict[str, float]]
Word = Literal["keep", "keep with care", "do not use"]


class Reply(Record):
    """A held-out input, what each row replied, and how far the student is from the teacher.

    `kl` is in nats a position along the teacher's reply.
    """

    index: str
    source: str
    input: str
    replies: dict[str, str]
    kl: float


class Judged(Record):
    """One measure of the student against its thresholds.

    `mark` is "good", "care", "bad", or "not measured", with the reason in `note`.
    """

    measure: str
    estimate: dict[str, float] | None
    keep: float
    care: float
    mark: Literal["good", "care", "bad", "not measured"]
    note: str


class Verdict(Record):
    """What to do, and why."""

    word: Word
    judged: list[Judged]
    further: list[str]


class Saving(Record):
    """What the student saves in one caching regime, at the user's traffic.

    FLOPs are of a session, and so are the tokens that are read. Money is a day's. `days` until
    data and training are paid for, in FLOPs; None: never.
    """

    regime: str
    flops_teacher: float
    flops_student: float
    read_teacher: int
    read_student: int
    money_teacher: float
    money_student: float
    days: float | None

    @property
    def flops_share(self) -> float:
        return self.flops_student / self.flops_teacher


class Savings(Record):
    """The traffic that they are for, the session's size in tokens, and what was invested."""

    sessions_per_day: int
    turns: int
    message_tokens: int
    reply_tokens: int
    prompt_tokens: int
    data_flops: int
    training_flops: int
    regimes: list[Saving]


class Drift(Record):
    """The version before against this one, on its held-out inputs that this one did not train on.

    Estimates are of both versions' replies: `student` of the two students, `teacher` of the two
    prompted models, so that what the prompt's edit asked for stands beside what came of it.
    `before` are the old student's measures against its own teacher.
    """

    previous: str
    same_prompt: bool
    same_model: bool
    prompt_tokens: int
    inputs: int
    left_out: int
    student: Estimates
    teacher: Estimates
    before: Estimates


class Outcome(Record):
    """Everything that the report says but for the replies themselves.

    `scores` are by row; `by_source` are the student's, on the "user"'s own inputs and on the
    "synthesised" ones alone, and empty unless there are both.
    """

    name: str
    prompt_file: str
    prompt_sha256: str
    prompt_tokens: int
    commit: str
    experiment: str
    model: dict[str, Any]
    seed: int
    confidence: float
    student: str
    methods: dict[str, str]
    format: str | None
    own_inputs: int
    held_out: int
    trained_inputs: int
    data: dict[str, dict[str, Any]]
    scores: dict[str, Estimates]
    by_source: dict[str, Estimates]
    probes: dict[str, Estimates]
    failures: dict[str, str]
    savings: Savings | None
    verdict: Verdict
    drift: Drift | None


def write_outcome(outcome: Outcome, replies: list[Reply], folder: Path) -> None:
    """Write both files."""
    write_text(folder / RECORD, outcome.model_dump_json(indent=2) + "\n")
    write_records(folder / REPLIES, replies)


def read_outcome(folder: Path) -> tuple[Outcome, list[Reply]]:
    """What `write_outcome` wrote; raises UserError if a file is missing or of another version."""
    path = folder / RECORD
    try:
        outcome = Outcome.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{path}: expected the record of an earlier `make internalize` of this version: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return outcome, read_records(folder / REPLIES, Reply)
