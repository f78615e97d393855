"""The losses, as pure functions of a model and a batch.

Both terms of the paper's joint loss are token means of the cross entropy on supervised positions:
of the pseudo conversations' assistant turns (SFT), and of prompt and reason (PG).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcd.core.sessions import Layers, common_length


@dataclass(frozen=True)
class Example:
    """A tokenised training example: `supervised[t]` says whether token t is a label.

    An id below 0 is no token: -1 - k stands for vector k of those that the model learns in place
    of embeddings (`read_row`). `teacher` holds the prompted teacher's last hidden states where the
    labels are predicted, [labels, d], for a loss that compares with them. `flops` are those that
    making it took in training, where torch does not count them.
    """

    ids: list[int]
    supervised: list[bool]
    teacher: Tensor | None = field(default=None, compare=False)
    flops: int = field(default=0, compare=False)

    @property
    def label_count(self) -> int:
        """Labels that the loss sees: the first token has no prediction before it."""
        return sum(self.supervised[1:])

    @property
    def labels(self) -> list[int]:
        """The places in `ids` of those labels."""
        return [place for place, flag in enumerate(self.supervised) if flag and place]


@dataclass(frozen=True)
class Batch:
    """Examples in a single row: what all of them begin with, once, then the rest of each.

    Attributes:
        ids: [1, N].
        positions: [1, N], counted from 0 in every example.
        shared: tokens that all examples begin with.
        lengths: of the rests; with `shared` their sum is N. No token attends to another example's
            rest (tested).
        places: [L], where in the row the labels are predicted, example by example.
        labels: [L], token ids.
        teacher: the examples' teacher states, [L, d]; None without.
    """

    ids: Tensor
    positions: Tensor
    shared: int
    lengths: list[int]
    places: Tensor
    labels: Tensor
    teacher: Tensor | None


LossSums = Callable[[Any, Batch], Tensor]  # model and batch to sums over the labels, [losses]
Read = Callable[[Any, Batch], Tensor]  # model and batch to hidden states at the places, [L, d]


def read_ids(example: Example) -> list[int]:
    """What is read of an example: the last label is predicted only, and nothing follows it."""
    return example.ids[: max([1, *example.labels])]


def pack(examples: list[Example], device: torch.device) -> Batch:
    """One row of all `examples`, without padding, and without a token that predicts no label.

    Chat templates open every conversation with the same system message: read once, it saves a
    fifth of the tokens of a default batch. With dropout in the LoRA layers the examples share what
    is dropped there.
    """
    read = [read_ids(example) for example in examples]
    shared = min(common_length(read[0], ids) for ids in read)
    row, positions = read[0][:shared], list(range(shared))
    places, labels = [], []
    for example, ids in zip(examples, read, strict=True):
        before = len(row) - shared
        row += ids[shared:]
        positions += range(shared, len(ids))
        for label in example.labels:
            places.append(label - 1 if label <= shared else before + label - 1)
            labels.append(example.ids[label])
    return Batch(
        ids=torch.tensor([row], device=device),
        positions=torch.tensor([positions], device=device),
        shared=shared,
        lengths=[len(ids) - shared for ids in read],
        places=torch.tensor(places, dtype=torch.long, device=device),
        labels=torch.tensor(labels, dtype=torch.long, device=device),
        teacher=_together([example.teacher for example in examples], device),
    )


def _together(states: list[Tensor | None], device: torch.device) -> Tensor | None:
    """The teacher states of a row's examples, [L, d]; None if any example has none."""
    given = [one for one in states if one is not None]
    return torch.cat(given).to(device) if len(given) == len(states) else None


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


def cross_entropy_sum(base: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of `labels` [L] behind hidden states [L, d] and the head, summed, in fp32.

    The output head is applied to supervised positions only: with 30 % of them supervised that
    saves 70 % of the largest activation, [batch, length, vocabulary].
    """
    total: Tensor = _CrossEntropySum.apply(hidden, base.lm_head.weight, labels)  # type: ignore[no-untyped-call]
    return total


def read_row(
    base: Any, batch: Batch, vectors: Tensor | None = None, prefix: Layers | None = None
) -> Tensor:
    """The last hidden states where labels are predicted, [L, d].

    Args:
        base: a causal language model that expects packed rows, see `attend_within_examples`.
        batch: see `Batch`; positions count from behind `prefix`.
        vectors: what ids below 0 stand for, [n, d]: id -1 - k for vector k.
        prefix: keys and values that every example attends to, with gradients.
    """
    read: dict[str, Any] = {"input_ids": batch.ids}
    if vectors is not None:
        known = base.get_input_embeddings()(batch.ids.clamp(min=0))
        learnt = vectors[(-1 - batch.ids).clamp(min=0)].to(known.dtype)
        read = {"inputs_embeds": torch.where(batch.ids[..., None] < 0, learnt, known)}
    hidden = base.model(
        **read,
        position_ids=batch.positions + (prefix[0][0].shape[1] if prefix else 0),
        use_cache=False,
        shared=batch.shared,
        lengths=batch.lengths,
        prefix=prefix,
    ).last_hidden_state
    return hidden[0, batch.places]  # type: ignore[no-any-return]


def read_adapted(model: Any, batch: Batch) -> Tensor:
    """`read_row` of a peft model's base: peft puts LoRA's layers into it in place."""
    return read_row(model.get_base_model(), batch)


def token_loss_sum(model: Any, batch: Batch, read: Read = read_adapted) -> Tensor:
    """Cross entropy summed over the supervised tokens, [1], in fp32.

    Args:
        model: has `get_base_model()`, the causal language model whose head predicts.
        batch: see `Batch`.
        read: how the model reads it.
    """
    total = cross_entropy_sum(model.get_base_model(), read(model, batch), batch.labels)
    return total[None]
