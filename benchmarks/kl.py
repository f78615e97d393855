"""Divergence to the teacher: block by block against logits of all labels at once.

python -m benchmarks.kl

Both sides start from hidden states and end with their gradient, for the same states of the base
model's size behind the base model's head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import alternate, compare, mebibytes, run, seconds
from benchmarks.reference import plain_mode
from benchmarks.results import Bar, BenchmarkRecord, write_record
from benchmarks.settings import CommonSettings, KlSettings, read_settings
from gcd.core.base_model import load_base
from gcd.core.errors import UserError
from gcd.core.params import read_params
from gcd.training.divergence import choose_divergence, divergence_sum
from gcd.training.settings import DivergenceSettings

# Relative, of sums in fp32 over some thousand logits in another order.
TOLERANCE = 1e-3


def dense_sum(base: Any, hidden: Tensor, teacher: Tensor, kind: str, share: float) -> Tensor:
    """By the book: log-probabilities of all labels, then the divergence that `kind` names."""
    weight = base.lm_head.weight
    student = torch.log_softmax((hidden @ weight.t()).float(), dim=-1)
    target = torch.log_softmax((teacher @ weight.t()).float(), dim=-1)

    def apart(one: Tensor, other: Tensor) -> Tensor:
        return torch.nn.functional.kl_div(other, one, reduction="sum", log_target=True)

    if kind == "forward":
        return apart(target, student)
    if kind == "reverse":
        return apart(student, target)
    mixture = (share * target.exp() + (1 - share) * student.exp()).log()
    return share * apart(target, mixture) + (1 - share) * apart(student, mixture)


def main() -> BenchmarkRecord:
    settings = read_settings("kl", KlSettings)
    params = read_params("model")
    base, _ = load_base(params.model)
    base.requires_grad_(False)
    draw = torch.Generator().manual_seed(read_settings("common", CommonSettings).seed)
    shape = (settings.labels, base.config.hidden_size)
    start, teacher = (torch.randn(shape, generator=draw) for _ in range(2))
    divergence = choose_divergence(
        DivergenceSettings(kind=settings.kind, teacher_share=settings.teacher_share, weight=1.0)
    )

    def side(loss: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
        hidden = start.clone().requires_grad_()
        value = loss(hidden)
        value.backward()  # type: ignore[no-untyped-call]
        assert hidden.grad is not None
        return value.item(), hidden.grad

    def ours(_: int = 0) -> tuple[float, Tensor]:
        return side(lambda hidden: divergence_sum(base, hidden, teacher, divergence))

    def reference(_: int = 0) -> tuple[float, Tensor]:
        with plain_mode():
            return side(
                lambda hidden: dense_sum(
                    base, hidden, teacher, settings.kind, settings.teacher_share
                )
            )

    runs = alternate({"ours": ours, "reference": reference}, settings.repeats, [ours, reference])
    (value, gradient), (expected, dense) = (runs[name][0].result for name in ("ours", "reference"))
    comparisons = [
        compare(
            "peak memory of a batch",
            mebibytes(runs["ours"]),
            mebibytes(runs["reference"]),
            "MiB",
            bar=Bar(kind="at most", value=settings.memory_at_most),
            inverse=True,
        ),
        compare(
            "time of a batch", seconds(runs["ours"]), seconds(runs["reference"]), "s", bar=None
        ),
    ]
    difference = (gradient - dense).abs().max().item()
    if abs(value - expected) > TOLERANCE * abs(expected):
        raise UserError(f"kl: expected the dense value {expected}, got {value}.")
    if difference > TOLERANCE * dense.abs().max().item():
        raise UserError(f"kl: the gradients differ by up to {difference}.")
    facts = {
        "value_of_ours": value,
        "value_of_reference": expected,
        "largest_gradient": dense.abs().max().item(),
        "largest_difference_of_gradients": difference,
    }
    return write_record("kl", comparisons, settings.repeats, settings.model_dump(), facts)


if __name__ == "__main__":
    run(main)
