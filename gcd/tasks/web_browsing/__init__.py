"""Web browsing: Mind2Web as AgentBench v0.2 runs it.

A sample is one step of a recorded task: which element of the page comes next, and what is done
with it? The agent is asked in rounds of multiple choice (`tournament.py`), each a conversation of
its own, about a pruned page (`page.py`). Samples are generated in Mind2Web's schema
(`generator.py`) or come from its own files (`records.py`, `ranks.py`).

Where we differ: the candidates are shuffled by a seed for each sample, not by one for the whole
run; the prose of a question is our own; and a step has failed after `max_turns` questions, or with
a question that does not fit the agent's context.
"""

from itertools import islice
from pathlib import Path
from typing import Self

from gcd.core.errors import UserError
from gcd.core.interfaces import Environment, Wording
from gcd.core.records import (
    Action,
    Conversation,
    Message,
    SkippedSample,
    read_records,
    write_records,
)
from gcd.core.settings import Share
from gcd.core.task_settings import TaskSettings
from gcd.tasks.web_browsing.generator import generate
from gcd.tasks.web_browsing.one_line import expand, is_one_line
from gcd.tasks.web_browsing.page import parse_page, view_page
from gcd.tasks.web_browsing.ranks import read_ranks
from gcd.tasks.web_browsing.records import BrowsingSample, Step, read_steps
from gcd.tasks.web_browsing.scoring import Prediction, Target, score_step
from gcd.tasks.web_browsing.tournament import (
    FIRST_CHOICE,
    NONE_OF_THE_ABOVE,
    Tournament,
    ask,
    parse_letter,
    parse_operation,
    target_operation,
)

WORDING = Wording(
    problem=(
        "steps of tasks on web pages, each on one line: the task, the previous action if there is "
        "one, and the elements of the page"
    ),
    agent="an agent that chooses the next action on a web page",
    environment="a web page",
    environment_opening="'''\n<html>",
)


class Settings(TaskSettings):
    """`rank_noise`: share of generated steps whose right element is not ranked first.
    `ranks_path`: the ranks of the real files' elements (`ranks.py`), needed with `data: files`."""

    rank_noise: Share
    ranks_path: str


def write_samples(settings: Settings, out: Path) -> list[SkippedSample]:
    """Write demonstrations.jsonl, development.jsonl and test.jsonl, without a common task."""
    skipped: list[SkippedSample] = []
    taken: set[str] = set()
    for name in ("test", "development", "demonstrations"):
        if name == "test" and settings.data == "files":
            samples, skipped = _read_files(settings)
        else:
            samples = generate(name, getattr(settings, name), taken, settings.rank_noise)
        taken |= {sample.step.task for sample in samples}
        write_records(out / f"{name}.jsonl", samples)
    return skipped


def _read_files(settings: Settings) -> tuple[list[BrowsingSample], list[SkippedSample]]:
    """The first `test.count` steps of the real files, as far as they can be played."""
    ranks = read_ranks(Path(settings.ranks_path))
    steps = list(islice(read_steps(Path(settings.data_path), ranks), settings.test.count))
    skipped = [step for step in steps if isinstance(step, SkippedSample)]
    samples = [_real_sample(step) for step in steps if isinstance(step, Step)]
    if not samples:
        raise UserError(
            f"{settings.data_path}: none of {len(steps)} steps can be played; the first: "
            f"{skipped[0].reason if skipped else 'there is none'}."
        )
    return samples, skipped


def _real_sample(step: Step) -> BrowsingSample:
    previous = "; ".join(step.previous_actions) or "None"
    groups = {"domain": step.domain, "website": step.website}
    problem = " ".join(f"{step.task} | {previous}".split())
    return BrowsingSample(index=step.id, problem=problem, groups=groups, step=step)


def read_samples(path: Path) -> list[BrowsingSample]:
    """Raises UserError naming the first bad line."""
    return read_records(path, BrowsingSample)


def is_problem(text: str) -> bool:
    """Task, previous action and elements, as `one_line.py` describes."""
    return is_one_line(text)


def first_message(problem: str) -> str:
    """A question about a page with the elements of the line."""
    return expand(problem)


def parse_action(reply: str) -> Action | None:
    """The chosen letter, and the operation with its value; None without `Answer: ` and a letter.

    The benchmark takes a missing letter for A, and so does `step`; but it is no action. With A,
    the operation counts for nothing.
    """
    letter = parse_letter(reply)
    if letter is None:
        return None
    content = None if letter == NONE_OF_THE_ABOVE else parse_operation(reply).strip()
    return Action(kind=letter, content=content)


def is_final(action: Action) -> bool:
    """Every question is a conversation of its own."""
    return True


class BrowsingEnvironment:
    """One step being played; satisfies `interfaces.Environment`."""

    def __init__(self, sample: BrowsingSample, settings: Settings) -> None:
        self._step = sample.step
        self._questions_left = settings.max_turns
        self._page = parse_page(self._step.html)
        self._tournament = Tournament(self._step.positives, self._step.negatives, self._step.id)
        self._choices: list[str] = []
        self._operation = ""
        self.messages: Conversation = []
        self.status = "running"
        self.score = 0.0
        self.measures = {"element_accuracy": 0.0, "action_f1": 0.0}
        self.details = {"backend": "embedded"}
        self.error: str | None = None

    def __enter__(self) -> Self:
        """The first question; "unknown" if the right element is not among the ten best ranked."""
        if not self._step.positives:
            self.status = "unknown"
            self.error = "no positive candidate among the ten best ranked"
        else:
            self._next_question()
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing was started."""

    def step(self, reply: str) -> str | None:
        """Take an answer; returns the next question, None when one element is left, or none."""
        letter = parse_letter(reply) or NONE_OF_THE_ABOVE
        place = ord(letter) - ord(FIRST_CHOICE)
        if 0 <= place < len(self._choices):
            self._operation = parse_operation(reply)
            self._tournament.choose(self._choices[place])
        else:
            self._tournament.drop()
        return self._next_question()

    def _next_question(self) -> str | None:
        batch = self._tournament.batch
        if not batch:
            self._end(self._tournament.winner)
            return None
        if not self._questions_left:
            self.status = "task limit reached"
            return None
        self._questions_left -= 1
        view = view_page(self._page, batch)
        self._choices = [node_id for node_id, _ in view.choices]
        step = self._step
        texts = [text for _, text in view.choices]
        question = ask(view.text, step.task, step.previous_actions, texts)
        self.messages = [Message(role="user", content=question)]
        return question

    def _end(self, winner: str | None) -> None:
        """Score the element that is left; without one the prediction is empty."""
        self.status = "completed" if winner is not None else "agent invalid action"
        prediction = Prediction(winner or "", self._operation if winner is not None else "")
        step = self._step
        target = Target(step.positives, target_operation(step.operation, step.value))
        result = score_step(prediction, target)
        self.score = result.success
        self.measures = {
            "element_accuracy": result.element_accuracy,
            "action_f1": result.action_f1,
        }


def start(sample: BrowsingSample, settings: Settings) -> Environment:
    """The step's environment, to be entered as a context manager."""
    return BrowsingEnvironment(sample, settings)
