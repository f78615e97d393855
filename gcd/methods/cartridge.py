"""A trained key-value prefix in place of the prompt (Cartridges, arXiv 2506.06266).

It begins as keys and values of the prompt itself, and learns the distributions of the prompted
teacher on its conversations. The base model stays as it is.
"""

from dataclasses import replace
from pathlib import Path

from pydantic import Field

from gcd.agents import load_prefix_agent
from gcd.core.base_model import load_base
from gcd.core.errors import UserError
from gcd.core.failures import by_itself
from gcd.core.interfaces import Agent
from gcd.core.params import FILE, Params
from gcd.core.sessions import Layers
from gcd.core.settings import Count, Positive, Section
from gcd.core.shared_prefix import compute_prefix
from gcd.data import read_prompt, read_pseudo_data
from gcd.training.adapters import conversation_term, examples_behind_prompt
from gcd.training.divergence import choose_divergence, imitation_loss_sums, with_teacher_states
from gcd.training.flops import add_flops, count_flops
from gcd.training.prefixes import (
    attach_cartridge,
    fit_prefix,
    read_behind_cartridge,
    require_room,
    shorten,
    with_learning_rate,
)
from gcd.training.settings import DivergenceSettings
from gcd.training.terms import Term


class Settings(Section):
    """A row for each of `slots`: positions of the prefix, at most as many as the prompt has.

    The first `frozen_slots` are not trained: all attend to a text's first token, whatever it is.
    `sft_weight` is that of SFT on the same labels, beside the divergence.
    """

    slots: list[Count] = Field(min_length=1)
    frozen_slots: int = Field(ge=0)
    learning_rate: Positive
    sft_weight: float = Field(ge=0)
    divergence: DivergenceSettings


def row(slots: int) -> str:
    """The row of the prefix with so many positions."""
    return f"cartridge_{slots}"


def rows(settings: Settings) -> list[str]:
    """One for each number of slots."""
    return [row(slots) for slots in settings.slots]


def make_term(task: str, params: Params) -> tuple[Term, dict[int, Layers]]:
    """What every row learns from, with the teacher's states; and what each prefix begins as."""
    settings: Settings = params.method
    base, tokenizer = load_base(params.model)
    data = read_pseudo_data(task)
    plain = conversation_term(tokenizer, data, params, settings.sft_weight)
    ids, following = examples_behind_prompt(tokenizer, data, plain.examples)
    require_room("methods.cartridge.slots", settings.slots, ids)
    prompt = compute_prefix(base, ids)
    divergence = choose_divergence(settings.divergence)
    term = replace(
        plain,
        weights={**plain.weights, "divergence": settings.divergence.weight},
        examples=with_teacher_states(base, prompt, following, following),
        loss_sums=imitation_loss_sums(divergence, read_behind_cartridge),
    )
    return term, {slots: shorten(base, prompt, slots) for slots in settings.slots}


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Train a prefix of each length into `out/<row>/adapter/`.

    Raises:
        UserError: a prefix longer than the prompt, nothing to train, or gradient checkpointing.
    """
    if params.train.gradient_checkpointing:
        raise UserError(
            f"{FILE}: `train.gradient_checkpointing`: peft's cartridges do not work with it; "
            "expected false. Train them without, with fewer train.micro_batch_tokens."
        )
    settings: Settings = params.method
    changed = with_learning_rate(params, settings.learning_rate)
    if settings.frozen_slots >= min(settings.slots):
        raise UserError(
            f"{FILE}: `methods.cartridge.frozen_slots`: expected fewer than every number of slots, "
            f"as the others are trained; got {settings.frozen_slots}."
        )
    with count_flops() as counter:
        term, starts = make_term(task, params)
    for slots, layers in starts.items():
        # Not the teacher's: read without gradients on a CPU, bitsandbytes packs 4-bit weights in a
        # way that none come back through; and FSDP divides a model in place.
        base, _ = load_base(params.model)
        model = attach_cartridge(base, layers, settings.frozen_slots)
        with by_itself(out / row(slots)):
            fit_prefix(model, term, changed, out / row(slots), work / row(slots))
            add_flops(out / row(slots), counter)


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model behind the trained prefix."""
    return load_prefix_agent(params, folder / row / "adapter", read_prompt(task)[1], work)
