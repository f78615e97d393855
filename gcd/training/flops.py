"""FLOPs of training, counted as torch runs: every matrix product and every attention, both ways.

torch's counter knows the kernels of a GPU; here the CPU's attention and products that add in place
are told to it. One multiply-add is 2 FLOPs, as in `gcd/cost.py`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from gcd.core.records import write_text

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The forward kernel, on shapes [B, H, n, d]."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_back(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The backward kernel, which computes the scores again."""
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


def _product(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    """[n, m] times [m, k]."""
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


def count_flops() -> FlopCounterMode:
    """A context; its `get_total_flops()` is what was computed inside."""
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_back,
            aten.addmm_: _product,
        },
    )


def add_flops(folder: Path, counter: FlopCounterMode) -> None:
    """Add to `folder`/training.json what was computed before the training itself."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    record["flops"] += counter.get_total_flops()
    write_text(folder / "training.json", json.dumps(record, indent=2) + "\n")
