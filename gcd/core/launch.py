"""Which of several processes this one is, where `accelerate launch` or torchrun starts a stage.

Read from the environment that both set, so that a stage that trains nothing needs no torch for it.
The first process owns all files: on the others the functions of `gcd.core.records` write nothing.
"""

import os


def local_rank() -> int:
    """This process's place on its machine, which is its GPU's; 0 where it was started alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's place among those of all machines; 0 where it was started alone.

    A RANK without a LOCAL_RANK says something about the machine, as some clusters set it, and not
    about this process. accelerate draws the same line.
    """
    return int(os.environ["RANK"]) if "LOCAL_RANK" in os.environ else 0


def sharded() -> bool:
    """Whether the launcher's configuration asks for a model in parts on all GPUs (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"
