"""Synthesis against a scripted model: every rejection has its reason."""

from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.interfaces import load_task
from gcd.core.prompt import parse_prompt
from gcd.core.records import (
    Conversation,
    PseudoInput,
    Reason,
)
from gcd.core.settings import (
    MakePseudoInputsSettings,
    MakeReasonsSettings,
)
from gcd.synthesis.steps import (
    Synthesis,
    _next_round,
    make_paired_outputs,
    make_pseudo_inputs,
    make_reasons,
)
from tests.scripted import SIZES, Scripted, pair
from tests.tiny import BASH, PROMPT

os_interaction = load_task("os_interaction")
TEACHER = parse_prompt(PROMPT, "prompt")
INPUTS = MakePseudoInputsSettings(
    model="base",
    minimum=1,
    max_requests=3,
    requests_per_round=8,
    demonstrations=2,
    temperature=1.0,
    top_p=1.0,
)


def inputs_from(lines: str) -> Synthesis[PseudoInput]:
    made = Scripted(lambda prompt, conversation: lines)
    return make_pseudo_inputs(
        made, "PROMPT", ["demo one", "demo two"], os_interaction, INPUTS, SIZES, 0
    )


def test_inputs_are_the_new_lines_of_the_list() -> None:
    made = inputs_from(
        "3. Count the files.\n4. 1. Make a folder.\n5. Delete it now.\n6. Read it all."
    )
    texts = [record.text for record in made.kept]
    assert texts == ["Count the files.", "Make a folder.", "Delete it now.", "Read it all."]
    assert [record.index for record in made.kept] == [0, 1, 2, 3]
    assert not made.rejected


def test_every_rejected_input_is_counted() -> None:
    """Three requests are spent, and each gives the same six lines, the last of them cut."""
    lines = (
        f"3. demo one\n4. Count the files.\n5. count THE files\n6. 7\n7. {'long ' * 9}\n8. Cut of…"
    )
    made = inputs_from(lines)
    assert [record.text for record in made.kept] == ["Count the files."]
    assert made.rejected == {"duplicate": 3 + 2 + 3, "no letters": 3, "too long": 3}


@pytest.mark.parametrize(
    ("asked", "kept", "requests"),
    [
        (0, 0, 10),  # nothing is known: 40 inputs at the 4 that each is asked for
        (10, 10, 20),  # 30 more at one a request: cut at 20 a round
        (10, 32, 5),  # 8 more at 3.2 a request are 3; half of the inputs' worth are 5
        (20, 26, 11),  # 14 more at 1.3 a request
        (10, 0, 20),  # no yield yet
        (90, 20, 10),  # at most 100 in all
    ],
)
def test_rounds_follow_the_yield(asked: int, kept: int, requests: int) -> None:
    settings = INPUTS.model_copy(update={"requests_per_round": 20, "max_requests": 100})
    sizes = SIZES.model_copy(update={"inputs": 40})
    assert _next_round(asked, kept, sizes, settings) == requests


def test_inputs_ask_in_rounds_and_stop_at_the_count() -> None:
    names = iter(["aa", "bb", "cc", "dd"])
    scripted = Scripted(
        lambda prompt, conversation: "".join(
            f"{n}. Count {name} {place}.\n"
            for name in [next(names)]
            for n, place in ((3, "here"), (4, "there"), (5, "up"))
        )
    )
    made = make_pseudo_inputs(
        scripted,
        "PROMPT",
        ["demo one", "demo two"],
        os_interaction,
        INPUTS,
        SIZES,
        0,
    )
    # One request of four is asked for; it gives three, so a second one follows.
    assert len(scripted.calls) == 2
    assert len(made.kept) == SIZES.inputs
    assert "PROMPT" in scripted.calls[0][0][0].content
    for _, _, options in scripted.calls:
        assert {line.split(". ")[1] for line in options["openings"][0].strip().split("\n")} == {
            "demo one",
            "demo two",
        }


def test_paired_outputs_keep_what_the_teacher_can_answer() -> None:
    answers: dict[str, tuple[str | None, str | None]] = {
        "good": (BASH, "Hello."),
        "no action": ("Hello.", "Hello."),
        "cut": (BASH + "…", "Hello."),
        "silent student": (BASH, ""),
        "no room": (None, "Hello."),
    }

    def answer(prompt: Conversation, conversation: Conversation) -> str | None:
        teacher, student = answers[conversation[-1].content.removeprefix("Problem: ")]
        return teacher if prompt else student

    inputs = [PseudoInput(index=number, text=text) for number, text in enumerate(answers)]
    made = make_paired_outputs(Scripted(answer), TEACHER, inputs, os_interaction, 50)
    assert [(record.index, record.student_output) for record in made.kept] == [(0, "Hello.")]
    assert made.rejected == {
        "teacher output without a valid action": 1,
        "teacher output too long": 1,
        "empty": 2,
    }


def test_reasons_see_both_outputs() -> None:
    answers = iter(["Because.", "", "Because of…"])
    scripted = Scripted(lambda prompt, conversation: next(answers))
    settings = MakeReasonsSettings(
        model="base", minimum=1, temperature=1.0, top_p=1.0, max_new_tokens=9
    )
    pairs = [pair(0), pair(1), pair(2)]
    made = make_reasons(scripted, "PROMPT", pairs, settings, 0)
    assert made.kept == [Reason(index=0, reason="Because.")]
    assert made.rejected == {"empty": 1, "too long": 1}
    prompt, conversations, _ = scripted.calls[0]
    assert "PROMPT" in prompt[0].content
    for text in ("problem 1", "Hi.", BASH):
        assert text in conversations[1][0].content


def test_too_few_are_an_error() -> None:
    made = Synthesis[Reason]([Reason(index=0, reason="x")])
    made.rejected["empty"] += 7
    made.require(1, "make_reasons.minimum")
    with pytest.raises(UserError, match=r"make_reasons\.minimum: at least 2 .*only 1 usable.*7"):
        made.require(2, "make_reasons.minimum")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = Synthesis[Reason]([Reason(index=0, reason="x")])
    made.rejected["empty"] += 7
    out, counts = tmp_path / "reasons.jsonl", tmp_path / "counts.json"
    made.write(out, counts)
    again = Synthesis[Reason]()
    again.add(out, counts, Reason)
    assert again == made
