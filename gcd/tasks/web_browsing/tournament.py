"""One step of Mind2Web as AgentBench v0.2 asks it: rounds of multiple choice.

The ten best ranked elements are shuffled and asked about, five at a time; the chosen one goes back
to the end of the line, until one is left (src/server/tasks/mind2web/task.py, `start_sample`, and
dataloader.py, `format_input_multichoice`).
"""

import random
import re

CANDIDATES = 5  # elements in a question
PREVIOUS_ACTIONS = 5  # the last ones, in a question
NONE_OF_THE_ABOVE = "A"
FIRST_CHOICE = "B"
_ANSWER = re.compile(r"Answer: (A|B|C|D|E|F)")
_OPERATION = re.compile(r"Action: (CLICK|SELECT|TYPE)")
_VALUE = re.compile(r"Value: (.*)$", re.MULTILINE)
QUESTION = """\
'''
{page}
'''

This is a part of a web page. The next action of this task is wanted:
Task: {task}
Previous actions:
{previous}
Which of these elements does it need? (A, if the element is not in the page above.)

A. None of the above
{choices}"""


def ask(page: str, task: str, previous_actions: list[str], choices: list[str]) -> str:
    """The question in the benchmark's layout; the prose in it is ours."""
    lettered = [
        f"{chr(ord(FIRST_CHOICE) + place)}. {choice}" for place, choice in enumerate(choices)
    ]
    return QUESTION.format(
        page=page,
        task=task,
        previous="\n".join(previous_actions[-PREVIOUS_ACTIONS:]) or "None",
        choices="\n".join(lettered),
    )


def parse_letter(text: str) -> str | None:
    """The letter after `Answer: `, None without one (the benchmark then takes A)."""
    match = _ANSWER.search(text)
    return match.group(1) if match else None


def parse_operation(text: str) -> str:
    """`OPERATION value`, the string that is scored; a missing part is empty (one space is left)."""
    text = text.strip()
    operation, value = _OPERATION.search(text), _VALUE.search(text)
    return f"{operation.group(1) if operation else ''} {value.group(1).strip() if value else ''}"


def target_operation(operation: str, value: str) -> str:
    """The string that a perfect reply is parsed to: the target goes through the same parser."""
    given = "" if operation == "CLICK" else f"Value: {value}"
    return parse_operation(f"Action: {operation}\n{given}")


class Tournament:
    """Who is still in the line. Ask about `batch`, then `choose` or `drop`, while it is not empty.

    Elements: `backend_node_id`s. The shuffle depends on `seed` alone.
    """

    def __init__(self, positives: list[str], negatives: list[str], seed: str) -> None:
        self._line = [*positives, *negatives]
        random.Random(seed).shuffle(self._line)
        self._chosen: str | None = None
        self.batch: list[str] = []
        self._next_batch()

    @property
    def winner(self) -> str | None:
        """The element chosen last; None if none was, or if the last batch was dropped."""
        return self._chosen if self._line else None

    def choose(self, element: str) -> None:
        """`element` of the batch goes to the end of the line, the others are out."""
        self._line.append(element)
        self._chosen = element
        self._next_batch()

    def drop(self) -> None:
        """The whole batch is out."""
        self._next_batch()

    def _next_batch(self) -> None:
        # One that is left alone is not asked about.
        count = CANDIDATES if len(self._line) > 1 else 0
        self.batch, self._line = self._line[:count], self._line[count:]
