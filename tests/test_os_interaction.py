"""OS interaction is played as AgentBench plays it, and the generated samples are sound."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.tasks import os_interaction
from gcd.tasks.os_interaction import OsEnvironment, OsSample, Settings
from gcd.tasks.os_interaction.sandbox import Sandbox
from tests.conftest import ROOT

with contextlib.chdir(ROOT):
    SETTINGS: Settings = read_params("tasks.os_interaction").task
Splits = dict[str, list[OsSample]]
Player = Callable[[OsSample, OsEnvironment], None]
SPLITS = ("demonstrations", "development", "test")


def act(command: str) -> str:
    return f"Think: I act.\n\nAct: bash\n\n```bash\n{command}\n```"


def sample(**evaluation: Any) -> OsSample:
    """A sample with one file, /data/word, that holds `walnut`."""
    init = {"code": "mkdir /data; echo walnut > /data/word"}
    source = {
        "description": "Which word is in /data/word?",
        "create": {"init": init},
        "evaluation": evaluation,
    }
    return OsSample(index="hand-0", groups={}, source=source)


def play(one: OsSample, *replies: str, **settings: Any) -> OsEnvironment:
    with OsEnvironment(one, SETTINGS.model_copy(update=settings)) as environment:
        for reply in replies:
            environment.step(reply)
        return environment


INTEGER = {"language": "python", "file": "check/integer-match.py"}


@pytest.mark.parametrize(
    ("evaluation", "reply", "score"),
    [
        ({"check": [None, INTEGER], "example": {"code": "echo 4"}}, "answer(4)", 1.0),
        ({"check": [None, INTEGER], "example": "echo 4"}, "answer(5)", 0.0),
        ({"check": [None, INTEGER], "example": "echo 4; exit 1"}, "answer(4)", 0.0),
        # The example's complaints are part of its output, as in AgentBench.
        ({"check": [None, INTEGER], "example": "echo 4; echo x >&2"}, "answer(4)", 0.0),
        ({"check": [INTEGER]}, "answer(4)", 0.0),
        ({"check": '[ "$1" = None ]'}, "finish", 1.0),
        ({"check": ['echo "$1"', '[ "$1$(echo $2)" = 44 ]']}, "answer(4)", 1.0),
        ({"check": ["echo 4", "exit 1"]}, "answer(4)", 0.0),
        ({"check": {"language": "python", "code": "import sys; sys.exit(0)"}}, "finish", 1.0),
        ({"match": "4", "check": "exit 1"}, "answer(4)", 1.0),
        ({"match": "None"}, "finish", 0.0),
    ],
)
def test_checks_get_the_answer_and_all_outputs_before(
    evaluation: dict[str, Any], reply: str, score: float
) -> None:
    played = play(sample(**evaluation), f"Act: {reply}")
    assert (played.status, played.score, played.error) == ("completed", score, None)


def test_the_agents_shell_has_no_say_in_its_check() -> None:
    check = {"code": "stat -c %s /data/none || exit 1"}
    tricks = "stat() { :; }; export -f stat; exec >/dev/null; exec 2>&1; PATH=/nowhere"
    planted = "printf '#!/bin/bash\\n' > /usr/local/bin/stat; chmod 755 /usr/local/bin/stat"
    played = play(sample(check=check), act(planted), act(tricks), "Act: finish")
    assert (played.status, played.score) == ("completed", 0.0)


# Playing.


def test_an_episode() -> None:
    with OsEnvironment(sample(match="walnut"), SETTINGS) as environment:
        reply = act("cd /data; cat word")
        assert environment.step(reply) == "The output of the OS:\n\nwalnut\n"
        assert environment.step(act("x=1")) == "The output of the OS is empty."
        assert environment.step(act("pwd")) == "The output of the OS:\n\n/data\n"
        roles = [message.role for message in environment.messages]
        assert roles == ["user", *["assistant", "user"] * 3]
        assert environment.messages[0].content == "Problem: Which word is in /data/word?"
        assert environment.messages[1].content == reply
        assert (environment.status, environment.score) == ("running", 0.0)
        assert environment.step("Act: answer(walnut)") is None
    assert (environment.status, environment.score) == ("completed", 1.0)


def test_what_the_machine_prints_begins_as_the_wording_says() -> None:
    for text in ("", "x", "x" * 900):
        opening = os_interaction.WORDING.environment_opening
        assert os_interaction.show_output(text, 800).startswith(opening)


def test_long_output_is_cut_as_agentbench_does() -> None:
    note = "\n[truncated because the output is too long]"
    assert os_interaction.show_output("x" * 800, 800) == "The output of the OS:\n\n" + "x" * 800
    shown = os_interaction.show_output("x" * 801, 800)
    assert shown == "The output of the OS:\n\n" + "x" * 780 + note


def test_a_reply_without_an_action_ends_the_episode() -> None:
    played = play(sample(match="walnut"), "I do not know.")
    assert (played.status, played.score) == ("agent invalid action", 0.0)


def test_the_last_turn_is_the_last() -> None:
    played = play(sample(match="walnut"), act("ls"), act("ls"), max_turns=2)
    assert (played.status, played.score) == ("task limit reached", 0.0)
    assert len(played.messages) == 3


def test_the_shell_can_end_and_the_episode_goes_on() -> None:
    with OsEnvironment(sample(match="walnut"), SETTINGS) as environment:
        observation = environment.step(act("exit 1"))
        assert observation is not None
        assert "new one was started" in observation
        assert environment.step(act("cat /data/word")) == "The output of the OS:\n\nwalnut\n"


def test_start_runs_in_the_agents_shell() -> None:
    one = sample(match="x")
    one.source["start"] = "word=typed; cd /data"
    with OsEnvironment(one, SETTINGS) as environment:
        assert environment.step(act("echo $word; pwd")) == "The output of the OS:\n\ntyped\n/data\n"


@pytest.mark.parametrize("init", [{"code": "echo broken; exit 3"}, {"file": "init/none.sh"}])
def test_a_failing_fixture_is_unknown(init: dict[str, str]) -> None:
    one = sample(match="x")
    one.source["create"] = {"init": init}
    with OsEnvironment(one, SETTINGS) as environment:
        assert (environment.status, environment.score) == ("unknown", 0.0)
        assert environment.error is not None
        assert "broken" in environment.error or "init/none.sh" in environment.error


@pytest.mark.parametrize("check", [{"file": "check/0.sh"}, {"language": "c", "code": ""}])
def test_a_check_that_cannot_run_is_a_task_error_and_no_pass(
    check: Any, caplog: pytest.LogCaptureFixture
) -> None:
    played = play(sample(check=check), "Act: finish")
    assert (played.status, played.score) == ("task error", 0.0)
    assert played.error


def test_any_fault_of_ours_is_one_samples_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Sandbox, "run", fail)
    played = play(sample(match="walnut"), act("ls"))
    assert (played.status, played.score) == ("task error", 0.0)
    assert played.error == "RuntimeError: out of luck"
    assert "out of luck" in caplog.text


# The generated samples.


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    folder = tmp_path_factory.mktemp("samples")
    os_interaction.write_samples(SETTINGS, folder)
    return {name: os_interaction.read_samples(folder / f"{name}.jsonl") for name in SPLITS}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        os_interaction.write_samples(SETTINGS, tmp_path / folder)
    for name in SPLITS:
        files = [tmp_path / folder / f"{name}.jsonl" for folder in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_no_problem_is_in_two_splits(splits: Splits) -> None:
    problems = [{one.problem for one in samples} for samples in splits.values()]
    assert len(set.union(*problems)) == sum(map(len, problems))
    indices = [one.index for samples in splits.values() for one in samples]
    assert len(set(indices)) == len(indices)


def test_no_answer_is_right_too_often(splits: Splits) -> None:
    """An agent that always gives one answer must not profit."""
    answers = [
        str(one.evaluation.get("match")) for one in splits["test"] if "match" in one.evaluation
    ]
    assert max(answers.count(answer) for answer in answers) <= len(answers) // 5


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"index": 1}\n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 1"):
        os_interaction.read_samples(tmp_path / "test.jsonl")


def gold(one: OsSample, environment: OsEnvironment) -> str:
    """Run the example; returns the last reply of an agent that solves the sample."""
    environment.step(act(one.evaluation["example"]["code"]))
    if "match" not in one.evaluation:
        return "Act: finish"
    text = environment.messages[-1].content.removeprefix("The output of the OS:\n\n")
    return f"Act: answer({text.strip()})"


def directory(one: OsSample) -> str:
    """The directory that the fixture fills first."""
    code = one.source["create"]["init"]["code"]
    return str(PurePosixPath(code.splitlines()[0].removeprefix("mkdir -p ")))


def solve(one: OsSample, environment: OsEnvironment) -> None:
    environment.step(gold(one, environment))


def stay_silent(one: OsSample, environment: OsEnvironment) -> None:
    environment.step("Act: finish")


def miss_nearly(one: OsSample, environment: OsEnvironment) -> None:
    """Solve it, then make a file too many, or answer a little wrong."""
    reply = gold(one, environment)
    environment.step(act(f"touch {directory(one)}/extra.txt"))
    answer = reply.removeprefix("Act: answer(").removesuffix(")")
    wrong = str(int(answer) + 1) if answer.isdigit() else answer[:-1]
    environment.step(f"Act: answer({wrong})" if "match" in one.evaluation else reply)


def lose_a_file(one: OsSample, environment: OsEnvironment) -> None:
    """Solve it, then delete a file that was to stay; answer only where none was asked for."""
    reply = gold(one, environment)
    environment.step(act(f"rm $(find {directory(one)} -type f | sort | tail -n 1)"))
    environment.step("Act: finish" if "match" in one.evaluation else reply)


@pytest.mark.parametrize(
    ("agent", "score"), [(solve, 1.0), (stay_silent, 0.0), (miss_nearly, 0.0), (lose_a_file, 0.0)]
)
def test_who_solves_every_sample_and_who_none(splits: Splits, agent: Player, score: float) -> None:
    def score_of(one: OsSample) -> tuple[str, str, float]:
        with OsEnvironment(one, SETTINGS) as environment:
            agent(one, environment)
            return one.index, environment.status, environment.score

    names = SPLITS if agent is solve else ("test",)
    samples = [one for name in names for one in splits[name]]
    with ThreadPoolExecutor(2) as pool:
        played = list(pool.map(score_of, samples))
    assert played == [(one.index, "completed", score) for one in samples]
