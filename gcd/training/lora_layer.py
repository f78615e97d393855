"""A LoRA layer whose product with the frozen weight and with A and B is one step of the graph.

peft's own layer is `base(x) + B(A(dropout(x))) * scaling`: two more tensors as large as the output
in each direction, of which one is kept for the gradient. This one adds in place and keeps the input
only. Same weights, same names, same files as peft's.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class _Product(torch.autograd.Function):
    """x Wᵀ + b + s · (x Aᵀ) Bᵀ, with gradients for x, A and B; W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        """x [n, in], weight [out, in], down (A) [r, in], up (B) [out, r] to [n, out]."""
        low = x @ down.t()
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scaling = scaling
        return nn.functional.linear(x, weight, bias).addmm_(low, up.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = gradients
        x, weight, down, up, low = ctx.saved_tensors
        low_gradient = (gradient @ up).mul_(ctx.scaling)
        down_gradient = low_gradient.t() @ x
        up_gradient = (gradient.t() @ low).mul_(ctx.scaling)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = (gradient @ weight).addmm_(low_gradient, down)
        return x_gradient, None, None, down_gradient, up_gradient, None


class LoraLinear(Linear):  # type: ignore[misc]  # peft has no types
    """peft's layer on a plain linear layer; with dropout or mixed dtypes it does what peft does."""

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        [name] = self.active_adapters
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        plain = isinstance(self.lora_dropout[name], nn.Identity)
        if not plain or self.merged or self.disable_adapters or down.dtype != x.dtype:
            made: Tensor = super().forward(x, *arguments, **options)
            return made
        base = self.base_layer
        rows = x.reshape(-1, x.shape[-1])
        made = _Product.apply(rows, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return made.view(*x.shape[:-1], -1)
