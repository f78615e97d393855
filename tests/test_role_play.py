"""Self role-playing against a scripted model: how conversations go on, and why they end."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gcd.core.interfaces import TextGenerator, load_task
from gcd.core.prompt import parse_prompt
from gcd.core.records import Conversation, PairedOutput, PseudoConversation
from gcd.core.settings import MakePseudoConversationsSettings
from gcd.synthesis.role_play import environment_prompt, make_pseudo_conversations, swap_roles
from gcd.synthesis.steps import Synthesis
from tests.scripted import SIZES, Scripted, pair
from tests.tiny import ANSWER, BASH, OUTPUT, PROMPT, assistant, system, user

os_interaction = load_task("os_interaction")
TEACHER = parse_prompt(PROMPT, "prompt")
CONVERSATIONS = MakePseudoConversationsSettings(
    model="base",
    minimum=1,
    live_conversations=2,
    temperature=1.0,
    top_p=1.0,
    end_token="[END]",
)


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
        return play(Scripted(answer), pairs, Path(work))


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
