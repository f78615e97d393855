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
from gcd.core.task_settings import SplitSettings
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


@pytest.mark.slow
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
            loose = page.xpath("//text()[not(parent::text)]")
            assert not "".join(map(str, loose)).strip()
            positives = {one.backend_node_id for one in action.pos_candidates}
            negatives = {one.backend_node_id for one in action.neg_candidates}
            assert 1 <= len(positives) <= 3
            assert 20 <= len(negatives) <= 60
            assert not positives & negatives
            assert positives | negatives <= node_ids(page)
            step_ranks = ranks[f"{task.annotation_id}_{action.action_uid}"]
            near, others = NEAR[tier], len(positives | negatives) - NEAR[tier]
            expected = [*range(near), *range(10, 10 + others)]
            assert sorted(step_ranks.values()) == expected
            assert step_ranks.keys() == positives | negatives
            assert (action.operation.value == "") == (action.operation.op == "CLICK")
            lost += any(step_ranks[node_id] >= 10 for node_id in positives)
    assert lost < 30


def test_rank_noise_is_the_share_of_steps_whose_element_is_not_first():
    def first_share(rank_noise: float) -> float:
        first = []
        for number in range(60):
            rng = random.Random(f"noise/{number}")
            record, ranks, _ = draw_task(rng, "job_board", "hard", set(), rank_noise)
            for action in RecordedTask.model_validate(record).actions:
                step_ranks = ranks[f"{record['annotation_id']}_{action.action_uid}"]
                first.append(step_ranks[action.pos_candidates[0].backend_node_id] == 0)
        return sum(first) / len(first)

    assert first_share(0.0) == 1
    assert first_share(1.0) == 0
    assert first_share(0.4) == pytest.approx(0.6, abs=0.1)  # about 330 steps


def target_text(sample: BrowsingSample) -> str:
    """The right element as XML, lower case."""
    page = parse_page(sample.step.html)
    (node,) = page.xpath(f'//*[@backend_node_id="{sample.step.positives[0]}"]')
    words = [*node.attrib.values(), *node.itertext()]
    return " ".join(map(str, words)).lower()


def test_an_easy_page_shows_one_element_that_the_task_names():
    for sample in drawn(120):
        if sample.groups["tier"] == "easy":
            template = TEMPLATES[sample.groups["template"]]
            fields = [*template.fields, template.submit_field]
            named = [field.label for field in fields if field.label in sample.step.task]
            assert len(named) == 3
            present = [label for label in named if label in sample.step.html]
            assert len(present) == 1
            assert present[0].lower() in target_text(sample)
            assert sample.step.value in sample.step.task


def test_words_of_templates_can_be_shown_and_separated():
    """Words of 15 letters are not shown; `|;:,` separate the parts of a problem."""
    for template in TEMPLATES.values():
        labels = [*template.links, *template.buttons, template.submit]
        labels += [word for field in template.fields for word in (field.label, *field.values)]
        for label in labels:
            assert not set(label) & set("|;:,")
            assert all(len(word) < LONG_WORD for word in label.split())
        assert len({field.label for field in template.fields}) == len(template.fields)


def test_an_exhausted_template_says_so():
    with pytest.raises(UserError, match="Lower the counts"):
        _draw_until_exhausted()


def _draw_until_exhausted() -> None:
    seen: set[str] = set()
    rng = random.Random("all")
    for _ in range(10**6):
        draw_task(rng, "store_list", "easy", seen, 0.0)


def test_problems_are_short_and_become_questions():
    for sample in drawn(120):
        assert web_browsing.is_problem(sample.problem)
        assert len(sample.problem.split()) < (50 if sample.groups["tier"] == "easy" else 75)
        question = web_browsing.first_message(sample.problem)
        assert f"\nTask: {sample.step.task}\n" in question
        assert question.count("\n") < 20
    with contextlib.suppress(ValueError):
        web_browsing.first_message("Buy a lamp | None")
        pytest.fail("a problem without elements has no question")


LINE = (
    "Find a flight to Oslo | Where from -> TYPE: Rome | "
    "input Where to; select Guests: 1, 2; button Search"
)


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ("", "", True),
        ("Where from -> TYPE: Rome", "Sign in -> CLICK", True),
        ("Where from -> TYPE: Rome", "no action", True),  # passed over
        (" | Where from -> TYPE: Rome", "", True),
        ("Find a flight to Oslo", "Go", False),
        (" | Where from -> TYPE: Rome | ", "", False),
        ("button Search", "button Search | x", False),
        ("button Search", "button Search.", True),
        (": 1, 2", "", True),
        ("; select Guests: 1, 2; button Search", "", False),
        ("select Guests: 1, 2; button Search", "menu Guests; open Search", False),
        ("select Guests: 1, 2; button Search", "button Where to", False),  # the same name again
    ],
)
def test_the_form_of_a_problem(old: str, new: str, accepted: bool):
    assert web_browsing.is_problem(LINE.replace(old, new, 1) if old else LINE) is accepted


def test_what_cannot_be_read_is_passed_over():
    loose = LINE.replace("button Search", "click Search; button Search; input Where to; button")
    assert web_browsing.first_message(loose) == web_browsing.first_message(LINE)


def test_an_element_may_be_named_by_what_one_does_with_it():
    line = "Find a nurse: click Search | Type Name; tick Open now; submit Search; Select Town: A, B"
    strict = line.replace("Type", "input").replace("tick", "checkbox")
    strict = strict.replace("submit", "button").replace("Select", "select")
    assert web_browsing.first_message(line) == web_browsing.first_message(strict)
    assert not web_browsing.is_problem(
        "Find a nurse: click Search | Name; clicks Search; opens Town"
    )


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
