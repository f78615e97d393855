"""A turn of the internalised student against one of the prompted teacher, by what is cached.

python -m benchmarks.inference

Both run on plain transformers, one session at a time, so that only the prompt and the weights
differ: the adapter is merged, and the student is an ordinary model without a prompt. Every reply
has the same number of tokens. The regimes are those of `gcd.cost`: the prompt is read anew in
every turn; once a session; or once for all sessions, outside what is timed. Without a prompt the
last two are the same.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import DynamicCache
from transformers.generation import BaseStreamer

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


class Clock(BaseStreamer):  # type: ignore[misc]
    """When `generate` was called, and when it had each of its tokens."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """Called with the tokens that are read, before anything is, and then with each new one."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called after the last token."""

    def first_token(self) -> float:
        """Seconds to the first token."""
        return self.times[1] - self.times[0]

    def output_token(self) -> float:
        """Seconds of each later one."""
        return (self.times[-1] - self.times[1]) / (len(self.times) - 2)


def answer(
    model: Any, ids: list[int], new_tokens: int, cache: DynamicCache | None, clock: Clock
) -> list[int]:
    """`ids` and exactly `new_tokens` greedy ones; what `cache` holds is not read again."""
    row = torch.tensor([ids])
    made = model.generate(
        streamer=clock,
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        past_key_values=cache,
    )
    return list(made[0].tolist())


@dataclass(frozen=True)
class Session:
    """What a session said, and its mean seconds to a first token and for a later one."""

    ids: list[int]
    first_token: float
    output_token: float


def play_session(
    model: Any, turns: list[list[int]], new_tokens: int, cache: DynamicCache | None
) -> Session:
    """A whole session; with `cache`, which may hold the prompt, nothing is read twice.

    Args:
        model: of transformers.
        turns: the ids that come before each reply; the prompt is part of the first.
        new_tokens: of each reply.
        cache: None to read everything in every turn.
    """
    ids: list[int] = []
    clocks = [Clock() for _ in turns]
    with plain_mode(), torch.inference_mode():
        for new, clock in zip(turns, clocks, strict=True):
            ids = answer(model, ids + new, new_tokens, cache, clock)
    return Session(
        ids,
        fmean(clock.first_token() for clock in clocks),
        fmean(clock.output_token() for clock in clocks),
    )


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

    def session(model: Any, opening: list[int], cache: DynamicCache | None) -> Session:
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
    results = {name: [one.result for one in made] for name, made in runs.items()}
    figures = {
        "time of a turn": {
            name: [one / settings.turns for one in seconds(made)] for name, made in runs.items()
        },
        "time to first token": {
            name: [one.first_token for one in made] for name, made in results.items()
        },
        "time per output token": {
            name: [one.output_token for one in made] for name, made in results.items()
        },
    }
    comparisons = [
        compare(f"{figure}, {regime}", found[ours], found[reference], "s", bar=None)
        for figure, found in figures.items()
        for regime, ours, reference in (
            ("prompt recomputed", "student, recomputed", "teacher, recomputed"),
            ("prompt cached per session", "student, cached", "teacher, cached"),
            ("prompt cached across sessions", "student, cached", "teacher, shared"),
        )
    ]
    replies = [made[0].ids for made in results.values()]
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
