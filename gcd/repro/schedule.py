"""Which stage runs next, and how long the rest takes: list scheduling, longest path first.

Throughout, `upstream` maps every stage to those it waits for, in an order in which they could run
one by one, and `seconds` says how long each is expected to take.
"""

import heapq
from collections.abc import Mapping, Set

Upstream = dict[str, set[str]]


def longest_paths(upstream: Upstream, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each stage to the end of the longest chain that begins with it."""
    after = dict.fromkeys(upstream, 0.0)
    paths = {}
    for stage in reversed(upstream):
        paths[stage] = after[stage] + seconds[stage]
        for earlier in upstream[stage]:
            after[earlier] = max(after[earlier], paths[stage])
    return paths


def ready_stages(upstream: Upstream, done: Set[str], paths: Mapping[str, float]) -> list[str]:
    """The stages, not yet done, that wait for nothing; first what the longest chain begins with."""
    ready = [stage for stage in upstream if stage not in done and upstream[stage] <= done]
    return sorted(ready, key=lambda stage: -paths[stage])


def seconds_left(
    upstream: Upstream,
    done: Set[str],
    running: Mapping[str, float],
    seconds: Mapping[str, float],
    jobs: int,
) -> float:
    """How long the stages that are not done take, `jobs` at a time, by playing the schedule.

    Args:
        running: for each stage that runs, its remaining seconds.
    """
    paths = longest_paths(upstream, seconds)
    finished = set(done)
    started = finished | running.keys()
    ends = [(left, stage) for stage, left in running.items()]
    heapq.heapify(ends)
    now = 0.0
    while True:
        for stage in ready_stages(upstream, finished, paths):
            if stage not in started and len(ends) < jobs:
                heapq.heappush(ends, (now + seconds[stage], stage))
                started.add(stage)
        if not ends:
            return now
        now, stage = heapq.heappop(ends)
        finished.add(stage)
