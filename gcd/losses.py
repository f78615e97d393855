"""The losses, as pure functions of a model and a batch.

Both terms of the paper's joint loss are token means of the cross entropy on supervised positions:
of the pseudo conversations' assistant turns (SFT), and of prompt and reason (PG).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
        positions: [1, N], from 0 in every example.
        supervised: [1, N]; an example's first token is never a label.
        lengths: of the examples. No token attends to another example (tested).
    """

    ids: Tensor
    positions: Tensor
    supervised: Tensor
    lengths: list[int]


def pack(examples: list[Example], device: torch.device) -> Batch:
    """One row of all `examples`: with padding, a third of the tokens would be for nothing."""

    def row(parts: list[list[int]]) -> Tensor:
        return torch.tensor([[item for part in parts for item in part]], device=device)

    return Batch(
        ids=row([example.ids for example in examples]),
        positions=row([list(range(len(example.ids))) for example in examples]),
        supervised=row([[0, *map(int, example.supervised[1:])] for example in examples]).bool(),
        lengths=[len(example.ids) for example in examples],
    )


# Rows of logits held at a time: 128 are 25 MB with a vocabulary of 49,152, where a prompt to
# generate has a thousand labels: 200 MB, four times over.
_ROWS = 128


class _CrossEntropySum(torch.autograd.Function):
    """Sum of cross entropies behind a frozen output head, [n, d] hidden states to a scalar.

    The gradient is computed on the way, block by block, so that no logits are kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(labels), _ROWS):
            block = slice(start, start + _ROWS)
            scores = torch.log_softmax((hidden[block] @ weight.t()).float(), dim=-1)
            chosen = labels[block, None]
            total -= scores.gather(1, chosen).sum()
            if gradient is not None:
                probabilities = scores.exp_()
                probabilities.scatter_add_(1, chosen, -probabilities.new_ones(chosen.shape))
                gradient[block] = probabilities.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = ctx.saved_tensors
        return gradients[0].to(gradient.dtype) * gradient, None, None


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
        input_ids=batch.ids,
        position_ids=batch.positions,
        use_cache=False,
        lengths=batch.lengths,
    ).last_hidden_state
    labelled = batch.supervised[:, 1:]
    weight = base.lm_head.weight
    total: Tensor = _CrossEntropySum.apply(  # type: ignore[no-untyped-call]
        hidden[:, :-1][labelled], weight, batch.ids[:, 1:][labelled]
    )
    return total
