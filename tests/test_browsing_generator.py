"""Generated steps are sound: winnable, not for free, reproducible, and in Mind2Web's schema."""

import contextlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.core.settings import SplitSettings
from gcd.tasks import web_browsing
from gcd.tasks.web_browsing import BrowsingEnvironment
from gcd.tasks.web_browsing.generator import NEAR, STEPS, draw_task, generate
from gcd.tasks.web_browsing.page import LONG_WORD, node_ids, parse_page
from gcd.tasks.web_browsing.records import BrowsingSample, RecordedTask
from gcd.tasks.web_browsing.templates import TEMPLATES
from tests.browsing import SETTINGS, choices

ROOT = Path(__file__).resolve().parents[1]
Player = Callable[[BrowsingSample, BrowsingEnvironment], str]


def drawn(count: int, seed: str = "s", rank_noise: float = 0.4) -> list[BrowsingSample]:
    return generate("test", SplitSettings(count=count, seed=seed), set(), rank_noise)


def play(sample: BrowsingSample, player: Player) -> BrowsingEnvironment:
    with BrowsingEnvironment(sample, SETTINGS) as environment:
        while environment.status == "running":
            environment.step(player(sample, environment))
    return environment


def act(letter: str, operation: str, value: str) -> str:
    return f"Answer: {letter}.\nAction: {operation}\n" + (f"Value: {value}" if value else "")


def right_letter(sample: BrowsingSample, environment: BrowsingEnvironment) -> str:
    """The letter of a positive; A if the question shows none."""
    shown = environment._choices
    letters = [
        letter
        for letter, node_id in zip("BCDEF", shown, strict=False)
        if node_id in sample.step.positives
    ]
    return letters[0] if letters else "A"


def gold(sample: BrowsingSample, environment: BrowsingEnvironment) -> str:
    step = sample.step
    return act(right_letter(sample, environment), step.operation, step.value)


def wrong_element(sample: BrowsingSample, environment: BrowsingEnvironment) -> str:
    right = right_letter(sample, environment)
    letters = "BCDEF"[: len(choices(environment))]
    letter = next((letter for letter in letters if letter != right), "A")
    return act(letter, sample.step.operation, sample.step.value)


def wrong_value(sample: BrowsingSample, environment: BrowsingEnvironment) -> str:
    step = sample.step
    return act(right_letter(sample, environment), step.operation, f"{step.value} wrong")


def test_gold_wins_every_step_silence_and_mistakes_win_none():
    samples = drawn(132)
    for sample in samples:
        played = play(sample, gold)
        assert (played.status, played.score) == ("completed", 1.0), sample.index
        assert play(sample, lambda *_: "").score == 0.0
        assert play(sample, wrong_value).score == 0.0
    scores = [play(sample, wrong_element).score for sample in samples]
    # A second element may be right too.
    assert sum(scores) < 0.2 * len(samples)


def test_samples_are_balanced_over_tiers_and_templates():
    groups = Counter(tuple(sample.groups.values()) for sample in drawn(96))
    tiers = Counter(sample.groups["tier"] for sample in drawn(96))
    assert tiers == {"easy": 48, "hard": 48}
    assert len(groups) == 2 * len(TEMPLATES)
    assert len(TEMPLATES) >= 6


def test_a_smaller_count_gives_a_prefix():
    assert drawn(50)[:20] == drawn(20)
    assert drawn(5, seed="s") != drawn(5, seed="t")


def test_splits_have_no_task_in_common(tmp_path: Path):
    assert web_browsing.write_samples(SETTINGS, tmp_path) == []
    tasks = [
        {sample.step.task for sample in web_browsing.read_samples(tmp_path / f"{name}.jsonl")}
        for name in ("demonstrations", "development", "test")
    ]
    assert len(set.union(*tasks)) == sum(map(len, tasks))


def test_the_hash_seed_changes_nothing(tmp_path: Path):
    code = (
        "import sys, pathlib; from tests.browsing import SETTINGS;"
        "from gcd.tasks import web_browsing;"
        "web_browsing.write_samples(SETTINGS, pathlib.Path(sys.argv[1]))"
    )
    written = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / seed], check=True, cwd=ROOT, env=environment
        )
        written.append(
            [(path.name, path.read_bytes()) for path in sorted((tmp_path / seed).iterdir())]
        )
    assert written[0] == written[1]
    assert len(written[0]) == 3


@pytest.mark.parametrize("tier", STEPS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_records_are_in_mind2webs_schema(name: str, tier: str):
    lost = 0
    for number in range(20):
        rng = random.Random(f"schema/{number}")
        record, ranks, _ = draw_task(rng, name, tier, set(), 0.4)
        task = RecordedTask.model_validate(record)
        assert 3 <= len(task.actions) <= 7
        assert len(task.action_reprs) == len(task.actions)
        for action in task.actions:
            page = parse_page(action.cleaned_html)
            ids = [str(node_id) for node_id in page.xpath("//@backend_node_id")]
            assert len(ids) == len(set(ids)) == len(page.xpath("//*"))
            # All text is in text elements.
            loose = LINE.replace(
                "button Search", "click Search; button Search; input Where to; button"
            )
    assert web_browsing.first_message(loose) == web_browsing.first_message(LINE)


def test_a_problem_is_expanded_in_the_style_of_a_real_question():
    question = web_browsing.first_message(LINE)
    page = (
        "<html> <body> <input id=0 text where to /> <select id=1 guests> <option> 1 </option> "
        "<option> 2 </option> </select> <button id=2> Search </button> </body> </html>"
    )
    assert question.startswith(f"'''\n{page}\n'''\n\n")
    assert "Previous actions:\n[textbox]  Where from -> TYPE: Rome\n" in question
    assert question.endswith(
        "\n\nA. None of the above\nB. <input id=0 text where to />\n"
        "C. <select id=1 guests> <option> 1 </option> <option> 2 </option> </select>\n"
        "D. <button id=2> Search </button>"
    )


def test_at_most_five_elements_become_choices():
    line = "Open the last page | " + "; ".join(f"link Page {letter}" for letter in "abcdefg")
    question = web_browsing.first_message(line)
    assert "\nF. <a id=4> Page e </a>" in question
    assert "\nG. " not in question
    assert "<a> Page g </a>" in question
