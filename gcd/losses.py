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
    """Right-padded examples: ids, attention mask and label mask, each [batch, length]."""

    ids: Tensor
    attention_mask: Tensor
    supervised: Tensor


def collate(examples: list[Example], device: torch.device) -> Batch:
    """Pad examples to the longest, on the right."""
    width = max(len(example.ids) for example in examples)

    def pad(rows: list[list[int]]) -> Tensor:
        return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)

    return Batch(
        ids=pad([example.ids for example in examples]),
        attention_mask=pad([[1] * len(example.ids) for example in examples]),
        supervised=pad([[int(flag) for flag in example.supervised] for example in examples]).bool(),
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
        input_ids=batch.ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state
    labelled = batch.supervised[:, 1:]
    logits = base.lm_head(hidden[:, :-1][labelled]).float()
    return cross_entropy(logits, batch.ids[:, 1:][labelled], reduction="sum")
