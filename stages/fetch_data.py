"""Download a benchmark's own data, for `data: files`. Not part of the pipeline: run it once.

python -m stages.fetch_data os_interaction
"""

from gcd.benchmark_sources import BENCHMARKS, fetch
from gcd.core.errors import UserError
from gcd.core.stage import run


def main(task: str) -> None:
    if task not in BENCHMARKS:
        raise UserError(f"no data to fetch for {task!r}; accepted: {', '.join(BENCHMARKS)}.")
    fetch(task, BENCHMARKS[task])


if __name__ == "__main__":
    run(main)
