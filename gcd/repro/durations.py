"""How long each stage cell is expected to take, by what was measured before.

Where a stage has run on this machine, `logs/timings.jsonl` knows; elsewhere the committed
`reports/benchmarks/stages.json` of the recorded run does, which `python -m gcd.repro --record`
writes from the timings of a whole run.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from gcd.core.records import write_text
from gcd.core.timings import TIMINGS
from gcd.host import describe_machine

RECORD = Path("reports/benchmarks/stages.json")
HOST = Path("reports/benchmarks/host.json")  # the machine of that run
# DVC's own part of a stage, which the stages' timings leave out: reading and writing dvc.lock.
DVC_SECONDS = 2.5
# For a stage that nobody has run, nor any of its kind.
UNKNOWN_SECONDS = 30.0
# What the first stages say about this machine's speed is averaged with a minute as expected.
PRIOR_SECONDS = 60.0


def read_timings(path: Path) -> dict[str, float]:
    """Seconds by stage cell, of its last run; empty if there is no file."""
    seconds = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            timing = json.loads(line)
        except ValueError:  # cut off by a kill: it costs one estimate
            continue
        cell = "-".join(timing["arguments"])
        seconds[f"{timing['stage']}@{cell}" if cell else timing["stage"]] = timing["seconds"]
    return seconds


def expected_seconds(stages: Iterable[str]) -> dict[str, float]:
    """For each of `stages`, with DVC's part; for an unknown cell the mean of its stage's cells."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    known |= read_timings(TIMINGS)

    def expect(stage: str) -> float:
        if stage in known:
            return float(known[stage])
        kind = stage.partition("@")[0]
        cells = [seconds for cell, seconds in known.items() if cell.partition("@")[0] == kind]
        return sum(cells) / len(cells) if cells else UNKNOWN_SECONDS

    return {stage: expect(stage) + DVC_SECONDS for stage in stages}


def slowness(expected: Iterable[float], observed: Iterable[float]) -> float:
    """By which factor the stages of this run took longer than expected."""
    return (sum(observed) + PRIOR_SECONDS) / (sum(expected) + PRIOR_SECONDS)


def record(stages: Iterable[str]) -> None:
    """Write `RECORD` from the last run of each of `stages` on this machine, and `HOST`."""
    seconds = read_timings(TIMINGS)
    known = {stage: seconds[stage] for stage in stages if stage in seconds}
    write_text(RECORD, json.dumps(known, indent=2) + "\n")
    write_text(HOST, json.dumps(describe_machine(), indent=2) + "\n")
