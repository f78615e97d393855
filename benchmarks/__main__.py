"""All benchmarks, each in a process of its own, and their table in reports/benchmarks/table.md.

python -m benchmarks                      # all of them; `make bench`
python -m benchmarks train_step limit     # these anew, the others as they were recorded
"""

import os
import subprocess
import sys

from benchmarks.results import FOLDER, read_record, table
from gcd.core.errors import UserError
from gcd.core.records import write_text
from gcd.repro.warm_python import MALLOC

NAMES = (
    "synthesis",
    "prompted_episodes",
    "train_step",
    "train_epoch",
    "kl",
    "train_rows",
    "inference",
    "growth",
    "limit",
)


def measure(names: list[str]) -> list[str]:
    """Run the named benchmarks; returns those that failed. What one recorded before is removed.

    Memory is kept as `make repro` has the stages keep it, for both sides.
    """
    failed = []
    for name in names:
        (FOLDER / f"{name}.json").unlink(missing_ok=True)
        sys.stderr.write(f"{name}\n")
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if subprocess.run(command, env={**os.environ, **MALLOC}, check=False).returncode:
            failed.append(name)
    return failed


def main(arguments: list[str]) -> str | None:
    """Returns what is missing or below its bar; None if all is well."""
    unknown = set(arguments) - set(NAMES)
    if unknown:
        raise UserError(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}.")
    failed = measure(arguments or list(NAMES))
    records = [record for record in map(read_record, NAMES) if record]
    text = table(records)
    write_text(FOLDER / "table.md", text)
    sys.stdout.write(text)
    missed = [
        f"{record.name}, {one.figure}"
        for record in records
        for one in [record, *record.further]
        if one.met() is False
    ]
    problems = [f"failed: {name}" for name in failed] + [f"bar missed: {line}" for line in missed]
    return "\n".join(problems) or None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"benchmarks: {error}")
