"""A turn of the internalised student against one of the prompted teacher, by what is cached.

python -m benchmarks.inference

Both run on plain transformers, one session at a time, so that only the prompt and the weights
differ: the adapter is merged, and the student is an ordinary model without a prompt. Every reply
has the same number of tokens. The regimes are those of `gcd.cost`: the prompt is read anew in
every turn; once a session; or once for all sessions, outside what is timed. Without a prompt the
last two are the same.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.measure import alternate, compare, run, seconds
from benchmarks.reference import load_plain, plain_mode
from benchmarks.results import BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, InferenceSettings, read_settings
from gcd.core.base_model import load_with_adapter
from gcd.core.chat import render, render_request
from gcd.core.params import read_params
from gcd.core.records import Conversation, PseudoConversation, read_records
from gcd.data import pseudo_folder, read_prompt


def later_turn(tokenizer: Any, messages: Conversation) -> list[int]:
    """The ids between an agent's reply and its next one: `messages` are user, assistant, user."""
    rendered = render(tokenizer, messages, generation_header=True)
    return rendered.ids[rendered.content_ends[1] :]


def answer(model: Any, ids: list[int], new_tokens: int, cache: DynamicCache | None) -> list[int]:
    """`ids` and exactly `new_tokens` greedy ones; what `cache` holds is not read again."""
    row = torch.tensor([ids])
    made = model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        past_key_values=cache,
    )
    return list(made[0].tolist())


def play_session(
    model: Any, turns: list[list[int]], new_tokens: int, cache: DynamicCache | None
) -> list[int]:
    """A whole session; with `cache`, which may hold the prompt, nothing is read twice.

    Args:
        model: of transformers.
        turns: the ids that come before each reply; the prompt is part of the first.
        new_tokens: of each reply.
        cache: None to read everything in every turn.
    """
    ids: list[int] = []
    with plain_mode(), torch.inference_mode():
        for new in turns:
            ids = answer(model, ids + new, new_tokens, cache)
    return ids


def main() -> BenchmarkRecord:
    common = read_settings("common", CommonSettings)
    settings = read_settings("inference", InferenceSettings)
    params = read_params("model")
    student, tokenizer, _, _ = load_with_adapter(
        params.model, Path("models", common.task, "gcd", "adapter")
    )
    teacher = load_plain(params.model)
    prompt = read_prompt(common.task)[1]
    path = pseudo_folder(common.task) / "conversations.jsonl"
    longer = [one for one in read_records(path, PseudoConversation) if len(one.messages) > 2]
    messages = longer[0].messages[:3]
    prompt_ids, first = render_request(tokenizer, prompt, messages[:1], "")
    bare = render_request(tokenizer, [], messages[:1], "")[1]
    later = [later_turn(tokenizer, messages)] * (settings.turns - 1)
    with plain_mode(), torch.inference_mode():
        prompt_cache = teacher(torch.tensor([prompt_ids]), use_cache=True).past_key_values

    def session(model: Any, opening: list[int], cache: DynamicCache | None) -> list[int]:
        return play_session(model, [opening, *later], settings.new_tokens, cache)

    sides = {
        "student, recomputed": lambda _: session(student, bare, None),
        "teacher, recomputed": lambda _: session(teacher, prompt_ids + first, None),
        "student, cached": lambda _: session(student, bare, DynamicCache()),
        "teacher, cached": lambda _: session(teacher, prompt_ids + first, DynamicCache()),
        "teacher, shared": lambda _: session(
            teacher, prompt_ids + first, copy.deepcopy(prompt_cache)
        ),
    }
    warm_up = [lambda: session(student, bare, None), lambda: session(teacher, bare, None)]
    runs = alternate(sides, settings.repeats, warm_up)
    turn = {name: [one / settings.turns for one in seconds(made)] for name, made in runs.items()}
    comparisons = [
        compare(f"time of a turn, {regime}", turn[ours], turn[reference], "s", bar=None)
        for regime, ours, reference in (
            ("prompt recomputed", "student, recomputed", "teacher, recomputed"),
            ("prompt cached per session", "student, cached", "teacher, cached"),
            ("prompt cached across sessions", "student, cached", "teacher, shared"),
        )
    ]
    replies = [runs[name][0].result for name in sides]
    facts = {
        "prompt_tokens": len(prompt_ids),
        "tokens_before_a_reply": [len(first), *map(len, later)],
        "student_identical_in_all_regimes": replies[0] == replies[2],
        "teacher_identical_in_all_regimes": replies[1] == replies[3] == replies[4],
    }
    used = common.model_dump() | settings.model_dump()
    return write_record("inference", comparisons, settings.repeats, used, facts)


if __name__ == "__main__":
    run(main)
