"""The four things synthesised from the prompt alone: inputs, paired outputs, reasons, dialogues.

Each function takes a `TextGenerator` and returns what was kept and why the rest was not. All
conversations of a step are generated in batches (paper, section 3.2; our wording).
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from gcd.core.decoding import Sampling
from gcd.core.errors import UserError
from gcd.core.interfaces import Task, TextGenerator
from gcd.core.records import (
    Conversation,
    Message,
    PairedOutput,
    PseudoInput,
    Reason,
    Record,
    read_records,
    write_records,
    write_text,
)
from gcd.core.settings import MakePseudoInputsSettings, MakeReasonsSettings
from gcd.core.task_settings import SynthesisSettings

INPUTS_REQUEST = """\
Below is the prompt of {agent}. People bring it {problem}.

<prompt>
{prompt}
</prompt>

You invent such problems: short, concrete, each different from the others, with names and paths of \
their own."""
INPUTS_QUESTION = "Write a numbered list of {count} new ones, one a line."

REASON_REQUEST = """\
You explain how a prompt changes what an assistant writes. The prompt is this:

<prompt>
{prompt}
</prompt>"""
REASON_QUESTION = """\
Input:
{pseudo_input}

Output without the prompt:
{student_output}

Output with the prompt:
{teacher_output}

Explain in at most five sentences why the output with the prompt is different, and name the parts \
of the prompt that caused it."""

ENVIRONMENT_REQUEST = """\
You play {environment}. The user is {agent}; whatever it does, you reply with exactly what \
{environment} would show it, and nothing else. When it has finished, you write {end_token}."""

_LIST_LINE = re.compile(r"^\s*\d+[.)]\s+(.+?)\s*$", re.MULTILINE)
_NUMBERING = re.compile(r"^(?:\d+[.)]\s+)+")
_LETTERS = re.compile(r"[^\W\d_]{2}")
RecordT = TypeVar("RecordT", bound=Record)


@dataclass
class Synthesis(Generic[RecordT]):
    """What was kept, and how many of the rest were rejected for which reason."""

    kept: list[RecordT] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    def require(self, minimum: int, key: str) -> None:
        """Raise UserError if fewer than `minimum` are usable; `key` is the parameter of it."""
        if len(self.kept) < minimum:
            raise UserError(
                f"{key}: at least {minimum} are needed, only {len(self.kept)} usable; rejected: "
                f"{dict(sorted(self.rejected.items()))}. Make more inputs, or use a stronger model "
                "or a clearer prompt."
            )

    def write(self, path: Path, counts: Path) -> None:
        """Write the records as JSON Lines to `path`, and how many there are to `counts` (JSON)."""
        summary = {"kept": len(self.kept), "rejected": dict(sorted(self.rejected.items()))}
        write_text(counts, json.dumps(summary, indent=2, sort_keys=True) + "\n")
        write_records(path, self.kept)

    def add(self, path: Path, counts: Path, kind: type[RecordT]) -> None:
        """Take in what `write` has written."""
        self.kept += read_records(path, kind)
        self.rejected.update(json.loads(counts.read_text(encoding="utf-8"))["rejected"])


def _normal(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".?!")


def make_pseudo_inputs(
    model: TextGenerator,
    prompt: str,
    demonstrations: list[str],
    task: Task,
    settings: MakePseudoInputsSettings,
    sizes: SynthesisSettings,
    seed: int,
) -> Synthesis[PseudoInput]:
    """Let the model continue shuffled numbered lists of demonstrations with problems of its own.

    Asked in chat, a small model repeats the demonstrations; as the continuation of a list in its
    own turn it invents. Requests go out in rounds (`_next_round`) until `inputs` are kept or
    `max_requests` are spent. Rejected: duplicates, lines without two letters in a row,
    lines that are no problem of the task, and lines longer than `input_characters`.
    """
    wording = task.WORDING
    system = INPUTS_REQUEST.format(agent=wording.agent, problem=wording.problem, prompt=prompt)
    request = [Message(role="system", content=system)]
    result: Synthesis[PseudoInput] = Synthesis()
    seen = {_normal(text) for text in demonstrations}
    shown = min(settings.demonstrations, len(demonstrations))
    question = INPUTS_QUESTION.format(count=shown + sizes.per_request)
    asked = 0
    while len(result.kept) < sizes.inputs and asked < settings.max_requests:
        rounds = _next_round(asked, len(result.kept), sizes, settings)
        openings = []
        for number in range(asked, asked + rounds):
            drawn = random.Random(f"{seed}/demonstrations/{number}").sample(demonstrations, shown)
            openings.append("".join(f"{n}. {text}\n" for n, text in enumerate(drawn, start=1)))
        replies = model.generate(
            request,
            [[Message(role="user", content=question)]] * rounds,
            max_new_tokens=sizes.input_tokens,
            sampling=Sampling(settings.temperature, settings.top_p, f"{seed}/inputs/{asked}"),
            openings=openings,
            progress="make_pseudo_inputs",
        )
        for reply in replies:
            if reply is None:
                raise UserError("The prompt leaves no room for pseudo inputs in the context.")
            lines = _LIST_LINE.findall(reply.text)[shown:]
            # A reply cut at its limit ends in half a problem.
            lines = lines if reply.complete else lines[:-1]
            _keep_inputs(lines, task.is_problem, seen, sizes, result)
        asked += rounds
    return result


def _next_round(
    asked: int, kept: int, sizes: SynthesisSettings, settings: MakePseudoInputsSettings
) -> int:
    """How many requests to send next: as many as the rest should take at the yield so far.

    Never fewer than half of the inputs' worth (one request takes 12 s, sixteen take 40 s), and
    never more than `requests_per_round`: the first rounds say little about the yield.
    """
    yielded = kept / asked if asked else sizes.per_request
    expected = (sizes.inputs - kept) / yielded if yielded else settings.requests_per_round
    least = sizes.inputs / 2 / sizes.per_request
    most = min(settings.requests_per_round, settings.max_requests - asked)
    return min(math.ceil(max(expected, least)), most)


def _keep_inputs(
    lines: list[str],
    is_problem: Callable[[str], bool],
    seen: set[str],
    sizes: SynthesisSettings,
    result: Synthesis[PseudoInput],
) -> None:
    """Sort new problems into kept and rejected, up to `inputs` kept."""
    for line in lines:
        if len(result.kept) == sizes.inputs:
            return
        # Small models number twice now and then: "7. 1. Delete the file".
        text = _NUMBERING.sub("", line)
        if not _LETTERS.search(text):
            result.rejected["no letters"] += 1
        elif not is_problem(text):
            result.rejected["not in the task's form"] += 1
        elif _normal(text) in seen:
            result.rejected["duplicate"] += 1
        elif len(text) > sizes.input_characters:
            result.rejected["too long"] += 1
        else:
            seen.add(_normal(text))
            result.kept.append(PseudoInput(index=len(result.kept), text=text))


def make_paired_outputs(
    model: TextGenerator,
    prompt: Conversation,
    inputs: list[PseudoInput],
    task: Task,
    max_new_tokens: int,
) -> Synthesis[PairedOutput]:
    """Answer every input with the prompt (teacher) and without (student), both greedily.

    One model gives both, so that only the prompt makes the difference. By definition of the student
    it is the base model; another teacher writes outputs that the base model would not.

    Rejected: inputs that the teacher does not answer with a valid action (off the prompt's topic,
    or beyond the model), and empty student outputs.
    """
    opened = [[Message(role="user", content=task.first_message(item.text))] for item in inputs]
    outputs = [
        model.generate(context, opened, max_new_tokens=max_new_tokens, progress=label)
        for context, label in ((prompt, "teacher outputs"), ([], "student outputs"))
    ]
    result: Synthesis[PairedOutput] = Synthesis()
    for item, teacher, student in zip(inputs, *outputs, strict=True):
        if teacher is None or student is None or not student.text:
            result.rejected["empty"] += 1
        elif not teacher.complete:
            result.rejected["teacher output too long"] += 1
        elif task.parse_action(teacher.text) is None:
            result.rejected["teacher output without a valid action"] += 1
        else:
            result.kept.append(
                PairedOutput(
                    index=item.index,
                    pseudo_input=item.text,
                    teacher_output=teacher.text,
                    student_output=student.text,
                )
            )
    return result


def make_reasons(
    model: TextGenerator,
    prompt: str,
    pairs: list[PairedOutput],
    settings: MakeReasonsSettings,
    seed: int,
) -> Synthesis[Reason]:
    """Ask why the prompt changed the output. Rejected: empty, and cut at the token limit."""
    replies = model.generate(
        [Message(role="system", content=REASON_REQUEST.format(prompt=prompt))],
        [
            [Message(role="user", content=REASON_QUESTION.format(**pair.model_dump()))]
            for pair in pairs
        ],
        max_new_tokens=settings.max_new_tokens,
        sampling=Sampling(settings.temperature, settings.top_p, f"{seed}/reasons"),
        progress="reasons",
    )
    result: Synthesis[Reason] = Synthesis()
    for pair, reply in zip(pairs, replies, strict=True):
        if reply is None or not reply.text:
            result.rejected["empty"] += 1
        elif not reply.complete:
            result.rejected["too long"] += 1
        else:
            result.kept.append(Reason(index=pair.index, reason=reply.text))
    return result
