"""prompt_recall: 1 for an agent that repeats the prompt, 0 for silence, between them by hand."""

from typing import Any

import pytest

from gcd.acting.recall import prompt_opening, recall_prompt, rouge_l
from gcd.agents import ChatAgent
from gcd.core.chat import encode_text
from gcd.core.errors import UserError
from gcd.core.interfaces import Agent, Reply
from gcd.core.language_model import LanguageModel
from gcd.core.prompt import format_prompt
from gcd.core.prompt_generation import PROMPT_GENERATION_TARGET, request, written_prompt
from gcd.core.records import Conversation
from gcd.core.settings import ModelSettings
from tests.scripted import Unread, pair
from tests.tiny import PROMPT, assistant, system, user


class Writer(Unread):
    """An agent that writes `text`, as far as its limit reaches."""

    deployment = "base"
    prompt_tokens = 0
    adapter_parameters = 0
    bytes_to_ship = 0

    def __init__(self, tokenizer: Any, text: str | None) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.asked: list[Conversation] = []

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        raise AssertionError("asked as in an episode")

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        self.asked += conversations
        if self.text is None:
            return [None] * len(conversations)
        ids = encode_text(self.tokenizer, self.text)[:max_new_tokens]
        text = self.tokenizer.decode(ids).strip()
        return [Reply(text, 1, len(ids), complete=False)] * len(conversations)


def recalled(tokenizer: Any, text: str | None, tokens: int) -> tuple[float, float]:
    opening = prompt_opening(tokenizer, PROMPT.strip(), tokens)
    agent: Agent = Writer(tokenizer, text)
    [record] = recall_prompt(agent, opening, [pair(3)], tokens)
    assert record.index == 3
    return record.edit_similarity, record.rouge_l


@pytest.mark.parametrize("tokens", [12, 40, 2000])  # cut, cut, and long enough for the reason
def test_who_repeats_the_prompt_scores_1(tokenizer: Any, tokens: int) -> None:
    target = PROMPT_GENERATION_TARGET.format(prompt=PROMPT.strip(), reason="It says how to act.")
    assert recalled(tokenizer, target, tokens) == (1.0, 1.0)


@pytest.mark.parametrize("text", [None, "", "Prompt:", "Prompt:\n\nReason:\nBecause."])
def test_silence_scores_0(tokenizer: Any, text: str | None) -> None:
    assert recalled(tokenizer, text, 40) == (0.0, 0.0)


def test_another_text_is_between_them(tokenizer: Any) -> None:
    half = PROMPT.strip()[: len(PROMPT) // 2]
    similarity, words = recalled(tokenizer, f"Prompt:\n{half}", 2000)
    assert 0.4 < similarity < 0.6
    assert 0.4 < words < 0.8
    # Without the heading a row loses nothing: the prompt is what counts.
    assert recalled(tokenizer, half, 2000) == (similarity, words)


def test_rouge_l_by_hand() -> None:
    # "a c d" is common: 3 of 4 written words, 3 of 5 expected ones. 2 * 3 / (4 + 5).
    assert rouge_l("a x c d", "a b c d e") == pytest.approx(6 / 9)
    assert rouge_l("d c b a", "a b c d") == pytest.approx(2 / 8)  # order counts
    assert rouge_l("", "a") == rouge_l("a", " ") == 0.0


def test_only_as_much_is_compared_as_an_answer_can_hold(tokenizer: Any) -> None:
    shorter, longer = (prompt_opening(tokenizer, PROMPT.strip(), count) for count in (12, 40))
    assert longer.startswith(shorter)
    assert len(shorter) < len(longer) < len(PROMPT)
    with pytest.raises(UserError, match=r"`run_episodes\.recall_tokens`.*got 1\."):
        prompt_opening(tokenizer, PROMPT, 1)


def test_headings_and_reason_are_no_part_of_the_prompt() -> None:
    assert written_prompt("Prompt:\nAct.\n\nReason:\nIt says so.") == "Act."
    assert written_prompt("  Act.  ") == "Act."
    assert written_prompt("Act.\n\nReason:") == "Act."


def test_every_pair_is_asked_about_as_in_training(tokenizer: Any) -> None:
    agent = Writer(tokenizer, "x")
    pairs = [pair(2), pair(5)]
    records = recall_prompt(agent, "x", pairs, 10)
    assert [record.index for record in records] == [2, 5]
    assert agent.asked == [request(pair(2)), request(pair(5))]
    assert "problem 5" in agent.asked[1][0].content


def test_writing_leaves_the_episodes_alone(model: Any, tokenizer: Any) -> None:
    """A conversation that goes on is answered the same, whether something was written between."""

    def play(*, writes: bool) -> list[str]:
        settings = ModelSettings(quantization="none", dtype="float32", batch_tokens=100_000)
        prompt = [system("You work in a shell.")]
        agent = ChatAgent(
            LanguageModel(model, tokenizer, settings, None),
            prompt,
            max_new_tokens=6,
            deployment="base",
            adapter_parameters=0,
            bytes_to_ship=len(format_prompt(prompt, "prompt").encode()),
        )
        talk = [user("apple birch")]
        said = []
        for _ in range(3):
            [reply] = agent.reply([talk])
            assert reply is not None
            said.append(reply.text)
            if writes:
                [written] = agent.write([request(pair(0))], 25)
                assert written is not None
                assert 6 < written.reply_tokens <= 25
            talk = [*talk, assistant(reply.text or "fern"), user("grape")]
        return said

    assert play(writes=True) == play(writes=False)
