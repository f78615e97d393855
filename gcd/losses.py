"""The losses, as pure functions of a model and a batch.

Both terms of the paper's joint loss are token means of the cross entropy on supervised positions:
of the pseudo conversations' assistant turns (SFT), and of prompt and reason (PG).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Example:
    """A tokenised training example: `supervised[t]` says whether token t is a label."""

    ids: list[int]
    supervised: list[bool]

    @property
    def label_count(self) -> int:
        """Labels that the loss sees: the first token has no prediction before it."""
        return sum(self.supervised[1:])


@dataclass(frozen=True)
class Batch:
    """Examples one after the other in a single row, without padding.

    Attributes:
        ids: [1, N].
        positions: [1, N], from 0 in every example. transformers sees from them where an example
            begins, and lets no token attend to another example (tested).
        supervised: [1, N]; an example's first token is never a label.
    """

    ids: Tensor
    positions: Tensor
    supervised: Tensor


def pack(examples: list[Example], device: torch.device) -> Batch:
    """One row of all `examples`: with padding, a third of the tokens would be for nothing."""

    def row(parts: list[list[int]]) -> Tensor:
        return torch.tensor([[item for part in parts for item in part]], device=device)

    return Batch(
        ids=row([example.ids for example in examples]),
        positions=row([list(range(len(example.ids))) for example in examples]),
        supervised=row([[0, *map(int, example.supervised[1:])] for example in examples]).bool(),
    )


def token_loss_sum(model: Any, batch: Batch) -> Tensor:
    """Cross entropy summed over the supervised tokens, in fp32.

    The output head is applied to supervised positions only: with 30 % of them supervised that
    saves 70 % of the largest activation, [batch, length, vocabulary].

    Args:
        model: a transformers causal language model, or a peft model around one.
        batch: see `Batch`.
    """
    # peft puts its layers into the base model in place: calling that applies the adapter.
    base = model.get_base_model()
    hidden = base.model(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    labelled = batch.supervised[:, 1:]
    logits = base.lm_head(hidden[:, :-1][labelled]).float()
    return cross_entropy(logits, batch.ids[:, 1:][labelled], reduction="sum")
