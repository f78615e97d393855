"""The machine that a figure was measured on."""

import platform
from pathlib import Path

import psutil


def describe_machine() -> dict[str, str | int | float]:
    """Processor, physical cores and memory."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": psutil.cpu_count(logical=False) or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
