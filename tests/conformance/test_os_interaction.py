"""OS interaction against AgentBench: action parsing, its own samples, its check scripts."""

import contextlib
import functools
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gcd.core.params import read_params
from gcd.core.records import SkippedSample
from gcd.tasks.os_interaction import OsEnvironment, OsSample, Settings, parse_action
from gcd.tasks.os_interaction.files import read_files
from gcd.tasks.os_interaction.judging import NATIVE_CHECKS, Script, native_check, scripts
from gcd.tasks.os_interaction.sandbox import Sandbox
from tests.conformance.conftest import RealData, Tally
from tests.conftest import ROOT

with contextlib.chdir(ROOT):
    SETTINGS: Settings = read_params("tasks.os_interaction").task
# How many of AgentBench's two splits may fail: they are broken, or need several users or a network.
DEVELOPMENT_FAILURES = 2 / 26
STANDARD_FAILURES = 12 / 144


def agrees(raw: str, expected: dict[str, Any]) -> bool:
    action = parse_action(raw)
    if action is None or expected["action"] is None:
        return action is None and expected["action"] is None
    kind = "bash" if action.kind == "bash" else "commit"
    return (kind, action.content) == (expected["action"], expected["content"])


def test_os_action_parsing(realdata: RealData, tally: Tally) -> None:
    cases = json.loads(realdata("os", "oracle", "extract_action_examples.json").read_text())
    results = [(f"{n}", agrees(case["raw"], case["expected"])) for n, case in enumerate(cases)]
    tally("OS action parsing", results)


# Gold runs: the sample's own command is run, its output answered, and AgentBench's check passes.


def read(path: Path) -> tuple[list[OsSample], list[SkippedSample]]:
    """The samples of a file or folder, with scripts out of `GCD_AGENTBENCH` if it is set."""
    checkout = os.environ.get("GCD_AGENTBENCH")
    found, skipped = read_files(path, Path(checkout or "none"), in_sandbox=True)
    samples = [OsSample(index=one.name, groups={}, source=one.source) for one in found]
    return samples, skipped


def plays_gold(sample: OsSample) -> bool:
    """Whether an agent that knows the sample's command, or its answer, passes."""
    with OsEnvironment(sample, SETTINGS) as environment:
        if environment.status != "running":
            return False
        evaluation = sample.evaluation
        if "match" in evaluation:
            match = evaluation["match"]
            answer = match if isinstance(match, str) else str(match["answer"])
        else:
            example = scripts(evaluation.get("example"))
            command = example[0].code if example else ""
            environment.step(f"Act: bash\n```bash\n{command}\n```")
            shown = environment.messages[-1].content
            answer = shown.removeprefix("The output of the OS:\n\n").strip()
        environment.step(f"Act: answer({answer})")
        return environment.score == 1.0


@functools.cache
def gold_results(path: Path) -> tuple[dict[str, bool], list[str]]:
    """Which samples pass, and those that need `GCD_AGENTBENCH`. What cannot be played fails."""
    samples, skipped = read(path)
    with ThreadPoolExecutor(2) as pool:
        passes = pool.map(plays_gold, samples)
        results = dict(zip((one.index for one in samples), passes, strict=True))
    absent = [one.index for one in skipped if "set `scripts_path`" in one.reason]
    results |= {one.index: False for one in skipped if one.index not in absent}
    return results, absent


def minimum_share(failures: float, results: dict[str, bool], absent: list[str]) -> float:
    """Of all samples `failures` may fail, whether or not some are absent."""
    allowed = math.ceil(failures * (len(results) + len(absent)))
    return (len(results) - allowed) / len(results)


def kind_of(split: str, absent: list[str]) -> str:
    without = f" (without {len(absent)} that need GCD_AGENTBENCH)" if absent else ""
    return f"OS gold runs, {split}{without}"


def test_os_gold_runs_of_the_development_split(realdata: RealData, tally: Tally) -> None:
    results, absent = gold_results(realdata("os", "agentbench_v0.2", "dev.json"))
    minimum = minimum_share(DEVELOPMENT_FAILURES, results, absent)
    tally(kind_of("development split", absent), results, minimum)


def test_os_gold_runs_of_the_standard_split(realdata: RealData, tally: Tally) -> None:
    """Those of its folders 1, 2, … that are there."""
    results: dict[str, bool] = {}
    absent: list[str] = []
    for folder in sorted(realdata("os", "agentbench_v0.2").iterdir()):
        if folder.name.isdigit():
            more, missing = gold_results(folder)
            results |= more
            absent += missing
    if not results:
        pytest.skip(f"nothing of AgentBench's folders 1, 2, … can be played; absent: {absent}")
    minimum = minimum_share(STANDARD_FAILURES, results, absent)
    tally(kind_of("standard split", absent), results, minimum)


def test_os_gold_runs_as_recorded(realdata: RealData, tally: Tally) -> None:
    """What passed in the recorded sandbox passes in this one, and nothing else does."""
    recorded = json.loads(realdata("os", "oracle", "gold_run_dev.json").read_text())
    results, absent = gold_results(realdata("os", "agentbench_v0.2", "dev.json"))
    expected = {
        f"dev-001-dev-{int(case['id'].partition('#')[2]):05d}": case["gold_ok_unprivileged"]
        for case in recorded
    }
    same = {index: passed == expected[index] for index, passed in results.items()}
    tally(kind_of("as recorded", absent), same)


# Check scripts.

ANSWERS = (
    "8",
    " 8 ",
    "08",
    "8.0",
    "4K",
    "4.0K",
    "4096",
    "4KB",
    "a",
    "a b",
    " a\r\nb",
    "a\nb\n",
    "",
)


def test_os_check_scripts(tally: Tally) -> None:
    """AgentBench's check scripts themselves, run by Python, agree with ours."""
    checkout = os.environ.get("GCD_AGENTBENCH")
    if not checkout:
        pytest.skip("GCD_AGENTBENCH is not set: no check scripts to compare with")
    files = [
        file
        for file in sorted(Path(checkout, "data/os_interaction/scripts").rglob("check/*.py"))
        if file.stem in NATIVE_CHECKS
    ]
    results = []
    with Sandbox(SETTINGS.sandbox) as sandbox:
        for file in files:
            code = Script(language="python", code=file.read_text()).code or ""
            for answer in ANSWERS:
                for expected in ANSWERS:
                    output = sandbox.run_script(code, [answer, expected], "python")
                    same = (output.exit_code == 0) == native_check(file.stem, answer, expected)
                    name = f"{file.parent.parent.name}/{file.stem} {answer!r} {expected!r}"
                    results.append((name, same))
    tally("OS check scripts", results)
