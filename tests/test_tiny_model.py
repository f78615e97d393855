"""The tiny model's lessons are what the tasks and the smoke prompts say."""

import random
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.interfaces import load_task
from gcd.core.language_model import LanguageModel
from gcd.core.prompt import parse_prompt
from gcd.core.settings import ModelSettings
from gcd.tiny_model import GREETING, OS_INTERACTION, PROTOCOLS, WORD, Protocol, build, lessons
from tests.conftest import ROOT
from tests.tiny import BASH, SOURCE, user

TASKS = dict(zip(("os_interaction", "web_browsing", "web_shopping"), PROTOCOLS, strict=True))


@pytest.mark.parametrize(("name", "protocol"), TASKS.items())
def test_a_protocol_is_the_tasks_own(name: str, protocol: Protocol) -> None:
    task = load_task(name)
    for word in protocol.words:
        problem, turns = protocol.problem.replace(WORD, word), protocol.say(word)
        assert task.is_problem(problem)
        assert turns[0] == task.first_message(problem)
        assert all(task.parse_action(reply) for reply in turns[1::2])
        last = task.parse_action(turns[-1])
        assert last is not None
        assert task.is_final(last)


@pytest.mark.parametrize(("name", "protocol"), TASKS.items())
def test_the_smoke_prompt_is_the_one_taught(name: str, protocol: Protocol) -> None:
    path = ROOT / "data/prompts/smoke" / f"{name}.md"
    assert parse_prompt(path.read_text(), str(path)) == protocol.prompt()


def test_a_lesson_of_every_kind() -> None:
    """A list, a reason, a greeting without a prompt; every turn of agent and environment."""
    made = lessons(random.Random(0), PROTOCOLS[0], 5)
    rests = [lesson.rest for lesson in made]
    assert rests[2] == GREETING
    assert [message.role for message in made[2].request] == ["user"]
    assert rests[3:] == [PROTOCOLS[0].turns[place] for place in (1, 3, 2)]
    numbers = [line.split(".")[0] for line in (made[0].opening + made[0].rest).splitlines()]
    assert numbers == [str(number) for number in range(1, 9)]
    assert all(lesson.request[-1].role == "user" for lesson in made)


def test_twice_the_same_weights() -> None:
    source = SOURCE.model_copy(update={"steps": 3})
    models = [build(source, PROTOCOLS[:1])[0] for _ in range(2)]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert one.equal(other)


def test_the_taught_model_acts_behind_its_prompt_and_greets_without(taught: Path) -> None:
    """The whole lesson, through the pipeline's own generation."""
    model = AutoModelForCausalLM.from_pretrained(taught)
    tokenizer = AutoTokenizer.from_pretrained(taught)
    settings = ModelSettings(quantization="none", dtype="float32", batch_tokens=1000)
    language_model = LanguageModel(model, tokenizer, settings, None)
    problem = [user(OS_INTERACTION.say("lib")[0])]
    replies = {}
    for name, prompt in (("with", OS_INTERACTION.prompt()), ("without", [])):
        made = language_model.generate(prompt, [problem], max_new_tokens=60, progress="")
        assert made[0] is not None
        replies[name] = made[0].text
    assert replies == {"with": BASH, "without": GREETING}
