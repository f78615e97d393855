"""Tokens and FLOPs of the rows: their training, where it has a closed form, and their episodes.

Training reads every example whole: that examples of a batch share what they begin with is left out
of account, so a prompt in front costs less than it does here.
"""

import math
from dataclasses import dataclass
from typing import Any

from gcd.core.params import Params
from gcd.cost import Architecture, forward_flops
from gcd.plan_work import (
    Lengths,
    Work,
    conversation_tokens,
    generation_tokens,
    training_flops,
)

UNTRAINED = ("full_prompt", "no_prompt")
ADAPTERS = ("seqkd", "seqkd_kld", "gcd", "gcd_kld", "on_policy")
SHORTENED = ("llmlingua2", "icae", "soft_prompt", "cartridge")  # what stands in for the prompt
# Products with the head at a label beside SFT's: logits of teacher and student, and back.
DIVERGENCE_HEADS = 3
ENTROPY_HEADS = 1


@dataclass(frozen=True)
class Cell:
    """A task of a profile; `adapter` counts the weights of LoRA."""

    model: Architecture
    params: Params
    sizes: Lengths
    adapter: int

    @property
    def steps(self) -> int:
        """Optimizer steps of every trained row."""
        training = self.params.task.training
        visits = training.epochs * self.params.task.synthesis.inputs
        steps: int = math.ceil(visits / training.batch_size)
        return steps

    @property
    def conversation(self) -> tuple[float, float]:
        """Tokens and labels of a conversation."""
        return conversation_tokens(self.sizes, self.params.train.max_length)

    def train(self, work: Work, visits: float, tokens: float, labels: float) -> None:
        """`visits` examples, there and back."""
        checkpointing = self.params.train.gradient_checkpointing
        cost = training_flops(self.model, tokens, labels, self.adapter, checkpointing=checkpointing)
        work.read += visits * tokens
        work.written += visits * labels
        work.flops += visits * cost

    def read_as_teacher(self, work: Work, examples: float, tokens: float) -> None:
        """`examples` behind the prompt, which is read once; no logits but the last."""
        work.read_prompt(self.model, self.sizes.prompt)
        work.read += examples * tokens
        cost = forward_flops(self.model, round(tokens), self.sizes.prompt, 0)
        work.flops += examples * cost

    def apply_head(self, work: Work, labels: float, times: int) -> None:
        """`times` products with the head at each label."""
        work.flops += 2 * times * labels * self.model.head_weights


def left_out(methods: list[str]) -> list[str]:
    """What of these methods has no price, in words."""
    known = [*UNTRAINED, *ADAPTERS, "prompt_prepending"]
    return [
        f"training of {one}" if one in SHORTENED else one for one in methods if one not in known
    ]


def fits(cell: Cell, method: str, settings: Any) -> list[Work]:
    """Training of a method, one `Work` for each adapter; none where there is no closed form."""
    visits = cell.steps * cell.params.task.training.batch_size
    tokens, labels = cell.conversation
    if method == "prompt_prepending":
        works = []
        for share in settings.shares:
            work = Work(f"fit prompt_prepending_{share}")
            prompted = visits * share / 100
            cell.train(work, prompted, cell.sizes.prompt + tokens, labels)
            cell.train(work, visits - prompted, tokens, labels)
            works.append(work)
        return works
    if method not in ADAPTERS:
        return []
    work = Work(f"fit {method}")
    cell.train(work, visits, tokens, labels)
    joint = settings if method in ("gcd", "gcd_kld") else None
    if method == "on_policy" and settings.warm_start == "gcd":
        joint = settings.joint_loss
    if joint:
        examples = math.ceil(cell.steps / joint.pg_every) * joint.pg_batch_size
        cell.train(
            work, examples, *generation_tokens(cell.sizes, joint.pg_target, joint.pg_max_length)
        )
    if method in ("seqkd_kld", "gcd_kld"):
        cell.read_as_teacher(work, cell.params.task.synthesis.inputs, tokens)
        cell.apply_head(work, visits * labels, DIVERGENCE_HEADS)
    if method == "on_policy":
        answer_and_learn(cell, work, settings)
    return [work]


def answer_and_learn(cell: Cell, work: Work, settings: Any) -> None:
    """The second phase of `on_policy`: replies as long as the teacher's, before a mean turn."""
    sizes = cell.sizes
    replies = settings.steps * settings.batch_size
    labels = min(sizes.reply + 1, settings.max_new_tokens)
    before = (sizes.turns - 1) / 2 * (sizes.reply + 1 + sizes.observation)
    state = min(sizes.first_message + before, cell.params.train.max_length)
    work.generate(cell.model, replies, 0, state, labels)
    work.written -= replies * labels  # counted where they are learnt from
    cell.read_as_teacher(work, replies, state + labels)
    cell.train(work, replies, state + labels, labels)
    # The divergence takes the place of the cross entropy's two products.
    cell.apply_head(work, replies * labels, DIVERGENCE_HEADS + ENTROPY_HEADS - 2)


def positions(method: str, settings: Any, prompt: int) -> list[float]:
    """Positions that the rows of a method read in place of the prompt, in the rows' order."""
    if method == "full_prompt":
        return [prompt]
    if method == "prompt_prepending":
        return [0, prompt] * len(settings.shares)
    if method == "llmlingua2":
        return [prompt * rate / 100 for rate in settings.rates]
    if method in ("soft_prompt", "cartridge"):
        return list(settings.slots)
    if method == "icae":
        return [slots + 1 for slots in settings.slots]  # and a mark; the header is a few more
    return [0] if method in (*UNTRAINED, *ADAPTERS) else []


def episodes(cell: Cell, method: str, settings: Any, rows: list[str]) -> list[Work]:
    """The rows of a method: the test samples, caches kept in a session, and prompt recall."""
    works = []
    sizes = cell.sizes
    found = positions(method, settings, sizes.prompt)
    for row, prompt in zip(rows, found, strict=True) if found else ():
        work = Work(f"run_episodes {row}")
        if prompt:
            work.read_prompt(cell.model, prompt)
        own, held = float(sizes.first_message), 0.0
        for turn in range(math.ceil(sizes.played_turns)):
            share = min(1.0, sizes.played_turns - turn) * cell.params.task.test.count
            work.generate(cell.model, share, prompt + held, own, sizes.reply)
            held += own + sizes.reply
            own = sizes.played_observation
        asked, settings_of_run = sizes.problem + 2 * sizes.reply, cell.params.run_episodes
        work.generate(
            cell.model,
            settings_of_run.recall_requests,
            prompt,
            asked,
            settings_of_run.recall_tokens,
        )
        works.append(work)
    return works
