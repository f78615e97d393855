"""How near each row comes to the prompted teacher, along the teacher's own replies.

The teacher's greedy replies to the held-out inputs are those of its episodes. They are read, not
written: at every token, and at the end of the reply, the row's distribution is compared with the
teacher's, as `gcd.probing.forgetting` compares with the base model's. So a row is asked what it
would do where the teacher was, and one different token does not make the rest incomparable. The
teacher reads its replies once; its last hidden states go through the row's own output head, which
no adapter here changes.

Everything here runs in the worktree's folder.
"""

from pathlib import Path

from gcd.core.base_model import BASE
from gcd.core.interfaces import Agent, ReadReply, load_method
from gcd.core.params import Params, read_params
from gcd.core.records import FULL_PROMPT, Conversation, Message, read_records, write_records
from gcd.core.stage import work_folder
from gcd.data import prompt_file, task_folder
from gcd.internalize.records import Answer, Measured
from gcd.internalize.run_params import TASK
from gcd.probing.forgetting import compare
from gcd.probing.records import AnswerReading
from gcd.rows import Row, Rows, played
from gcd.tasks.custom.inputs import Input

EPISODES, OUT = Path("reports/episodes"), Path("reports/fidelity")


def answers_of(row: Row, samples: dict[str, Input]) -> list[Answer]:
    """The replies of a row's episodes, but for inputs that did not fit its context."""
    return [
        Answer(
            index=episode.index,
            source=samples[episode.index].source,
            input=samples[episode.index].text,
            reply=turn.reply,
            tokens=turn.reply_tokens,
            complete=turn.complete,
        )
        for episode in row.episodes
        for turn in episode.turns[:1]
    ]


def ask(inputs: list[str]) -> list[Conversation]:
    """A conversation of one user turn for each."""
    return [[Message(role="user", content=text)] for text in inputs]


def read_along(agent: Agent, answers: list[Answer]) -> list[ReadReply]:
    """What the agent expects at every token of the teacher's `answers`."""
    replies = [one.reply for one in answers]
    return agent.read_replies(ask([one.input for one in answers]), replies)


def compare_along(
    agent: Agent, read: list[ReadReply], teacher: list[ReadReply]
) -> list[AnswerReading]:
    """KL(teacher || row) and equal first choices, reply by reply."""
    return [
        compare(
            number,
            agent.log_probabilities(ours.states),
            agent.log_probabilities(own.states),
        )
        for number, (ours, own) in enumerate(zip(teacher, read, strict=True))
    ]


def load_row(row: str, method: str, params: Params, work: Path) -> Agent:
    """The agent of a row of this run."""
    return load_method(method).load_agent(row, TASK, params, Path("models", TASK, method), work)


def row_work(row: str, method: str) -> tuple[Params, list[Path]]:
    """The params that a row's agent needs, and the files that it depends on."""
    params = read_params("model", "run_episodes", f"methods.{method}")
    return params, [BASE / "model.json", prompt_file(TASK), Path("models", TASK, method)]


def measure(rows: Rows) -> dict[str, Measured]:
    """All rows that did not fail, the teacher first; written to `OUT` as well.

    Args:
        rows: those of the task, from `gcd.rows.read_rows`.
    """
    samples: list[Input] = read_records(task_folder(TASK) / "test.jsonl", Input)
    known = {one.index: one for one in samples}
    found = played(rows)
    teacher_answers = answers_of(found[FULL_PROMPT], known)
    ordered = [FULL_PROMPT, *(name for name in found if name != FULL_PROMPT)]
    teacher: list[ReadReply] = []
    measured = {}
    for name in ordered:
        method = found[name].method
        params, inputs = row_work(name, method)
        with work_folder(f"fidelity-{name}", params, inputs) as work:
            agent = load_row(name, method, params, work)
            read = read_along(agent, teacher_answers)
            teacher = teacher or read
            readings = compare_along(agent, read, teacher)
        answers = answers_of(found[name], known)
        measured[name] = Measured(method, answers, readings)
        write_records(OUT / name / "answers.jsonl", answers)
        write_records(OUT / name / "readings.jsonl", readings)
    return measured


def reply_to(row: str, method: str, inputs: list[str]) -> list[str]:
    """The row's greedy replies to other inputs; "" where one does not fit its context."""
    params, files = row_work(row, method)
    with work_folder(f"drift-{row}", params, files) as work:
        replies = load_row(row, method, params, work).reply(ask(inputs))
        return [one.text if one else "" for one in replies]
