"""Synthesis and self role-playing against a scripted model: every rejection has its reason."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.core.interfaces import Reply, TextGenerator, load_task
from gcd.core.prompt import parse_prompt
from gcd.core.records import (
    Conversation,
    PairedOutput,
    PseudoConversation,
    PseudoInput,
    Reason,
    read_records,
)
from gcd.core.settings import (
    MakePseudoConversationsSettings,
    MakePseudoInputsSettings,
    MakeReasonsSettings,
    SynthesisSettings,
)
from gcd.synthesis.role_play import environment_prompt, make_pseudo_conversations, swap_roles
from gcd.synthesis.steps import (
    Synthesis,
    _next_round,
    make_paired_outputs,
    make_pseudo_inputs,
    make_reasons,
)
from tests.tiny import ANSWER, BASH, OUTPUT, PROMPT, assistant, system, user

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
SIZES = SynthesisSettings(
    inputs=4,
    per_request=4,
    input_tokens=50,
    input_characters=40,
    reasons=9,
    max_turns=3,
    environment_tokens=30,
)
CONVERSATIONS = MakePseudoConversationsSettings(
    model="base",
    minimum=1,
    live_conversations=2,
    temperature=1.0,
    top_p=1.0,
    end_token="[END]",
)


class Scripted:
    """Stands in for a TextGenerator: `answer` says what each conversation is answered with."""

    def __init__(self, answer: Callable[[Conversation, Conversation], str | None]) -> None:
        self.answer = answer
        self.calls: list[tuple[Conversation, list[Conversation], dict[str, Any]]] = []

    def generate(
        self, prompt: Conversation, conversations: list[Conversation], **options: Any
    ) -> list[Reply | None]:
        # Copies: the caller goes on writing in its own lists.
        seen = [list(conversation) for conversation in conversations]
        self.calls.append((prompt, seen, options))
        openings = options.get("openings") or [""] * len(seen)
        return [
            self._reply(opening, self.answer(prompt, conversation))
            for opening, conversation in zip(openings, seen, strict=True)
        ]

    def _reply(self, opening: str, text: str | None) -> Reply | None:
        """`…` at the end of a scripted text says that it was cut at the token limit."""
        if text is None:
            return None
        return Reply((opening + text).strip().removesuffix("…"), 0, 0, not text.endswith("…"))


def model(answer: Callable[[Conversation, Conversation], str | None]) -> TextGenerator:
    return Scripted(answer)


def pair(index: int, teacher: str = BASH) -> PairedOutput:
    return PairedOutput(
        index=index, pseudo_input=f"problem {index}", teacher_output=teacher, student_output="Hi."
    )


def inputs_from(lines: str) -> Synthesis[PseudoInput]:
    made = model(lambda prompt, conversation: lines)
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
    made = make_paired_outputs(model(answer), TEACHER, inputs, os_interaction, 50)
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


def test_too_few_are_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    made = Synthesis[Reason]([Reason(index=0, reason="x")])
    made.rejected["empty"] += 7
    out, counts = tmp_path / "reasons.jsonl", tmp_path / "counts.json"
    with pytest.raises(UserError, match=r"only 1 usable, at least 2 .*make_reasons\.minimum.*7"):
        made.write(out, counts, 2, "make_reasons.minimum")
    assert not list(tmp_path.iterdir())
    made.write(out, counts, 1, "make_reasons.minimum")
    assert read_records(out, Reason) == made.kept


def test_swapped_roles_drop_the_system_message() -> None:
    messages = [system("s"), user("a"), assistant("b")]
    assert swap_roles(messages) == [assistant("a"), user("b")]
    prompt = environment_prompt(TEACHER, os_interaction, "[END]")
    assert [message.role for message in prompt[:3]] == ["system", "assistant", "user"]
    assert "[END]" in prompt[0].content


def converse(
    environment: str | None, agent: str | None, pairs: list[PairedOutput]
) -> Synthesis[PseudoConversation]:
    """Environment and agent always say the same."""

    def answer(prompt: Conversation, conversation: Conversation) -> str | None:
        return agent if prompt == TEACHER else environment

    with TemporaryDirectory() as work:
        return play(model(answer), pairs, Path(work))


def play(
    model: TextGenerator, pairs: list[PairedOutput], work: Path
) -> Synthesis[PseudoConversation]:
    return make_pseudo_conversations(
        model, TEACHER, pairs, os_interaction, CONVERSATIONS, SIZES, 50, 0, work
    )


OPENING = os_interaction.WORDING.environment_opening
REST = OUTPUT.removeprefix(OPENING)


def test_conversations_are_played_and_kept_in_groups(tmp_path: Path) -> None:
    """Two at a time: a run that was killed in the second group does not play the first again."""
    scripted = Scripted(lambda prompt, _: ANSWER if prompt == TEACHER else REST)
    pairs = [pair(number) for number in range(3)]
    whole = play(scripted, pairs, tmp_path)
    assert [conversation.index for conversation in whole.kept] == [0, 1, 2]
    assert [len(seen) for _, seen, _ in scripted.calls] == [2, 2, 1, 1]
    first, second = (
        {id(options["sessions"]) for *_, options in scripted.calls[n::2]} for n in (0, 1)
    )
    assert len(first) == len(second) == 2 and not first & second  # a side's and a group's own
    (tmp_path / "conversations-2.jsonl").unlink()
    scripted.calls.clear()
    assert play(scripted, pairs, tmp_path) == whole
    assert [len(seen) for _, seen, _ in scripted.calls] == [1, 1]


def test_a_conversation_ends_with_the_agents_answer() -> None:
    made = converse(REST, ANSWER, [pair(0), pair(1, ANSWER)])
    first, second = made.kept
    assert first.messages == [
        user("Problem: problem 0"),
        assistant(BASH),
        user(OUTPUT),
        assistant(ANSWER),
    ]
    assert second.messages == [user("Problem: problem 1"), assistant(ANSWER)]
    assert {record.end for record in made.kept} == {"committed"}


def test_roles_alternate_and_no_turn_is_empty() -> None:
    """An agent that never commits runs into the turn limit."""
    record = converse(REST, BASH, [pair(0)]).kept[0]
    assert record.end == "turn limit"
    assert [message.role for message in record.messages] == ["user", "assistant"] * 3
    assert all(message.content for message in record.messages)


def test_the_environment_may_end_it() -> None:
    record = converse(" is empty. [END]", ANSWER, [pair(0)]).kept[0]
    assert record.end == "environment"
    assert record.messages[-1].role == "assistant"


@pytest.mark.parametrize(
    ("environment", "agent", "reason"),
    [
        (None, ANSWER, "longer than the context"),
        (REST, None, "longer than the context"),
        (REST, "", "empty agent turn"),
        (REST, ANSWER + "…", "agent turn too long"),
        (REST, "Hello.", "agent turn without a valid action"),
        (REST + "…", ANSWER, "environment turn too long"),
    ],
)
def test_faulty_turns_are_counted(environment: str | None, agent: str | None, reason: str) -> None:
    """What came before the faulty turn is kept."""
    made = converse(environment, agent, [pair(0), pair(1, ANSWER)])
    assert made.rejected == {reason: 1}
    broken, whole = made.kept
    assert broken.messages == [user("Problem: problem 0"), assistant(BASH)]
    assert broken.end == "faulty turn"
    assert whole.end == "committed"


def test_a_faulty_first_turn_leaves_nothing() -> None:
    made = converse(REST, ANSWER, [pair(0, "Hello.")])
    assert made.kept == []
    assert made.rejected == {"agent turn without a valid action": 1}
