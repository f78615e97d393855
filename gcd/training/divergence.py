"""How far the student's next-token distributions are from the prompted teacher's.

The teacher is the base model with the prompt in its context. Its weights do not change, so its
last hidden states are computed once, before training, and kept in place of logits: 576 numbers a
label instead of 49,152 with the default model.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gcd.core.errors import UserError
from gcd.core.shared_prefix import Prefix
from gcd.training.losses import (
    Batch,
    Example,
    LossSums,
    Read,
    cross_entropy_sum,
    pack,
    read_adapted,
    read_row,
)
from gcd.training.packed_attention import attend_within_examples
from gcd.training.settings import DivergenceSettings

# Rows of logits held at a time, of student and teacher each: see `losses`.
_ROWS = 128


def forward_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each row, from log-probabilities [n, V]."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) of each row."""
    return forward_divergence(teacher, student)


def jensen_shannon_divergence(student: Tensor, teacher: Tensor, teacher_share: float) -> Tensor:
    """β KL(teacher || m) + (1 - β) KL(student || m) of each row; m = β teacher + (1 - β) student.

    The generalised form of arXiv 2306.13649, section 3.1; β is `teacher_share`.
    """
    share = torch.tensor(teacher_share, dtype=student.dtype, device=student.device)
    mixture = torch.logaddexp(teacher + share.log(), student + torch.log1p(-share))
    return teacher_share * forward_divergence(mixture, teacher) + (
        1 - teacher_share
    ) * forward_divergence(mixture, student)


Divergence = Callable[[Tensor, Tensor], Tensor]


def choose_divergence(settings: DivergenceSettings) -> Divergence:
    """The divergence that `settings.kind` names, of log-probabilities [n, V] each."""
    share = settings.teacher_share
    kinds: dict[str, Divergence] = {
        "forward": forward_divergence,
        "reverse": reverse_divergence,
        "jensen_shannon": partial(jensen_shannon_divergence, teacher_share=share),
    }
    return kinds[settings.kind]


class _DivergenceSum(torch.autograd.Function):
    """Sum of divergences behind one frozen head, [n, d] hidden states each to a scalar.

    The gradient for the student's states is computed on the way, block by block, so that
    [n, vocabulary] never exists.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, teacher: Tensor, weight: Tensor, divergence: Divergence
    ) -> Tensor:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), _ROWS):
            block = slice(start, start + _ROWS)
            target = torch.log_softmax((teacher[block] @ weight.t()).float(), dim=-1)
            logits = hidden[block] @ weight.t()
            if gradient is None:
                total += divergence(torch.log_softmax(logits.float(), dim=-1), target).sum()
                continue
            with torch.enable_grad():
                logits.requires_grad_()
                value = divergence(torch.log_softmax(logits.float(), dim=-1), target).sum()
                [back] = torch.autograd.grad(value, logits)
            total += value.detach()
            gradient[block] = back @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = ctx.saved_tensors
        return gradients[0].to(gradient.dtype) * gradient, None, None, None


def divergence_sum(base: Any, hidden: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """Divergences summed over [L, d] hidden states of the student and the teacher, in fp32."""
    total: Tensor = _DivergenceSum.apply(hidden, teacher, base.lm_head.weight, divergence)  # type: ignore[no-untyped-call]
    return total


def imitation_loss_sums(divergence: Divergence, read: Read = read_adapted) -> LossSums:
    """Cross entropy and divergence to the teacher of the same labels, [2], from one reading."""

    def loss_sums(model: Any, batch: Batch) -> Tensor:
        if batch.teacher is None:
            raise UserError("An example has no teacher states; see `with_teacher_states`.")
        base, hidden = model.get_base_model(), read(model, batch)
        teacher = batch.teacher.to(hidden.dtype)
        entropy = cross_entropy_sum(base, hidden, batch.labels)
        return torch.stack([entropy, divergence_sum(base, hidden, teacher, divergence)])

    return loss_sums


@torch.no_grad()
def with_teacher_states(
    base: Any, prefix: Prefix, examples: list[Example], prompted: list[Example]
) -> list[Example]:
    """`examples` with the teacher's hidden states.

    Args:
        base: the base model, without an adapter.
        prefix: the prompt.
        examples: what the student reads.
        prompted: the same labels, as they follow the prompt (`examples.behind`).

    Raises:
        UserError: an example's labels differ from those behind the prompt.
    """
    attend_within_examples(base)
    made = []
    pairs = zip(examples, prompted, strict=True)
    interval = 1.0 if sys.stderr.isatty() else 15.0
    for example, behind in tqdm(
        pairs, total=len(examples), desc="teacher", unit="example", mininterval=interval
    ):
        batch = pack([behind], base.device)
        if batch.labels.tolist() != [example.ids[place] for place in example.labels]:
            raise UserError("A conversation has other labels behind the prompt than without it.")
        states = read_row(base, batch, prefix=prefix.layers)
        made.append(replace(example, teacher=states.cpu()))
    return made
