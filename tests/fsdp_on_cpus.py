"""`stages.fit` with the model divided over CPU processes: accelerate offers that on GPUs only.

It is told that these are GPUs, after it has set up their communication as CPUs. All that follows is
the real thing: torch divides the model, collects the checkpoints and the adapter.

accelerate launch --config_file configs/fsdp_qlora.yaml fsdp_on_cpus.py os_interaction gcd
"""

import gcd.core  # noqa: F401, I001  (fixes the arithmetic mode before torch is imported)

import bitsandbytes.nn.modules
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from gcd.core.stage import run
from stages.fit import main

if __name__ == "__main__":
    # On a CPU with AVX-512 for bf16, bitsandbytes packs 4-bit weights when they are first read
    # without gradients, as here to compare the divided model with the whole one; packed they give
    # none.
    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    PartialState._shared_state["device"] = torch.device("cpu")
    run(main)
