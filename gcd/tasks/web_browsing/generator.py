"""Seeded web tasks as records in Mind2Web's own schema, with ranks, cut into samples.

Easy tasks name labels and values literally, and a page shows one element that the task names. Hard
tasks name no label, and their pages show the whole form: the previous actions tell what is next.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import count as numbers
from typing import Any

from gcd.core.errors import UserError
from gcd.core.task_settings import SplitSettings
from gcd.tasks.web_browsing.markup import (
    OPERATIONS,
    ROLES,
    describe,
)
from gcd.tasks.web_browsing.one_line import write_one_line
from gcd.tasks.web_browsing.records import (
    TOP_RANKS,
    BrowsingSample,
    RecordedTask,
    Step,
    cut_steps,
)
from gcd.tasks.web_browsing.site import Page, rank_candidates, write_page
from gcd.tasks.web_browsing.templates import (
    TEMPLATES,
    Field,
    Template,
)

# Actions of a task, the last of which presses the form's button.
STEPS = {"easy": (3, 3), "hard": (4, 7)}
# Candidates among the ten best ranked: a question shows five, so an easy step is one question.
NEAR = {"easy": 5, "hard": TOP_RANKS}
SHOWN_ELEMENTS = 3  # in the one-line form of a problem
# After 1,000 draws without a new task nearly all tasks of a template are taken.
DRAWS = 1000
TAGS = {"button": "button", "link": "a", "checkbox": "input", "input": "input", "select": "select"}
VERBS = {
    "button": "click {label}",
    "checkbox": "tick {label}",
    "input": "type {value} in {label}",
    "select": "select {value} in {label}",
}
Choice = tuple[Field, str]  # a field, and what is typed or selected there ("" for a click)


def generate(
    name: str, split: SplitSettings, taken: set[str], rank_noise: float
) -> list[BrowsingSample]:
    """Samples balanced over tiers and, in each, over templates; a smaller count gives a prefix.

    Args:
        name: of the split; begins every index.
        split: how many, and the seed.
        taken: texts of tasks that no sample may belong to.
        rank_noise: share of the steps whose right element is not ranked first.

    Raises:
        UserError: a template has no task left.
    """
    seen = set(taken)
    streams = {
        tier: _stream(f"{split.seed}/{name}/{tier}", tier, seen, rank_noise) for tier in STEPS
    }
    tiers = list(STEPS)
    samples = []
    for position in range(split.count):
        tier = tiers[position // len(TEMPLATES) % len(tiers)]
        template, step, problem = next(streams[tier])
        samples.append(
            BrowsingSample(
                index=f"{name}-{position:03d}",
                problem=problem,
                groups={"tier": tier, "template": template},
                step=step,
            )
        )
    return samples


def _stream(
    seed: str, tier: str, seen: set[str], rank_noise: float
) -> Iterator[tuple[str, Step, str]]:
    """(template, step, problem) of one task of each template, step by step, then of new tasks.

    The first step comes from the tasks' first, second, ... step in turn, so that the first few
    samples hold more than openings.
    """
    for number in numbers():
        tasks = []
        for name in TEMPLATES:
            rng = random.Random(f"{seed}/{name}/{number}")
            record, ranks, pages = draw_task(rng, name, tier, seen, rank_noise)
            steps = [
                step
                for step in cut_steps(RecordedTask.model_validate(record), ranks)
                if isinstance(step, Step)
            ]
            tasks.append([(name, *pair) for pair in zip(steps, pages, strict=True)])
        for turn in range(max(map(len, tasks))):
            for place, steps_of_task in enumerate(tasks):
                if turn < len(steps_of_task):
                    name, step, page = steps_of_task[(turn + place) % len(steps_of_task)]
                    yield name, step, _problem(step, page)


def draw_task(
    rng: random.Random, name: str, tier: str, seen: set[str], rank_noise: float
) -> tuple[dict[str, Any], dict[str, dict[str, int]], list[Page]]:
    """One record in Mind2Web's schema, the ranks of its steps' candidates, and its pages."""
    template = TEMPLATES[name]
    for _ in range(DRAWS):
        choices = _choose(rng, template, rng.randint(*STEPS[tier]))
        task = _easy_task(template, choices) if tier == "easy" else _hard_task(template, choices)
        if task not in seen:
            break
    else:
        raise UserError(
            f"{DRAWS} draws gave no new {tier} `{name}` task. Lower the counts under "
            "`tasks.web_browsing` in params.yaml."
        )
    seen.add(task)
    annotation = hashlib.sha256(task.encode()).hexdigest()[:16]
    actions, ranks, pages = [], {}, []
    for place, choice in enumerate(choices):
        others = {field.label for field, _ in choices if field != choice[0]}
        hidden = others if tier == "easy" else set()
        page = write_page(rng, template, hidden, choice[0])
        positives, ranked = rank_candidates(rng, page, rank_noise, NEAR[tier])
        uid = hashlib.sha256(f"{annotation}/{place}".encode()).hexdigest()[:16]
        actions.append(_action(uid, choice, page, positives, list(ranked)))
        ranks[f"{annotation}_{uid}"] = ranked
        pages.append(page)
    record = {
        "annotation_id": annotation,
        "website": rng.choice(template.websites),
        "domain": template.domain,
        "subdomain": name,
        "confirmed_task": task,
        "action_reprs": [
            describe(ROLES[field.kind], field.label, OPERATIONS[field.kind], value)
            for field, value in choices
        ],
        "actions": actions,
    }
    return record, ranks, pages


def _choose(rng: random.Random, template: Template, steps: int) -> list[Choice]:
    """Fields in the page's order, then the form's button; no value twice."""
    chosen = sorted(rng.sample(range(len(template.fields)), steps - 1))
    used: set[str] = set()
    choices: list[Choice] = []
    for place in chosen:
        field = template.fields[place]
        free = [value for value in field.values if value not in used]
        value = rng.choice(free) if field.values else ""
        used.add(value)
        choices.append((field, value))
    return [*choices, (template.submit_field, "")]


def _easy_task(template: Template, choices: list[Choice]) -> str:
    clauses = [VERBS[field.kind].format(label=field.label, value=value) for field, value in choices]
    return f"{template.goal}: {', '.join(clauses)}"


def _hard_task(template: Template, choices: list[Choice]) -> str:
    *wishes, last = [field.phrase.format(value=value) for field, value in choices]
    return f"{template.goal} {', '.join(wishes)}, and {last}"


def _action(
    uid: str, choice: Choice, page: Page, positives: list[str], ranked: list[str]
) -> dict[str, Any]:
    """One action in Mind2Web's schema."""
    field, value = choice
    tags = page.wrappers | {
        node_id: TAGS[element.kind] for node_id, element in page.elements.items()
    }

    def candidate(node_id: str) -> dict[str, Any]:
        attributes = json.dumps({"backend_node_id": node_id})
        return {"tag": tags[node_id], "attributes": attributes, "backend_node_id": node_id}

    return {
        "action_uid": uid,
        "operation": {
            "op": OPERATIONS[field.kind],
            "original_op": OPERATIONS[field.kind],
            "value": value,
        },
        "raw_html": page.html,
        "cleaned_html": page.html,
        "pos_candidates": [
            candidate(node_id)
            | {
                "is_original_target": node_id == page.target,
                "is_top_level_target": node_id == positives[-1],
            }
            for node_id in positives
        ],
        "neg_candidates": [
            candidate(node_id) for node_id in sorted(ranked, key=int) if node_id not in positives
        ],
    }


def _problem(step: Step, page: Page) -> str:
    """The right element and some of the other candidates, in the page's order, on one line."""
    rng = random.Random(f"{step.id}/one line")
    others = [node_id for node_id in step.negatives if node_id in page.elements]
    shown = {page.target, *rng.sample(others, SHOWN_ELEMENTS - 1)}
    elements = [element for node_id, element in page.elements.items() if node_id in shown]
    return write_one_line(step.task, step.previous_actions, elements)
