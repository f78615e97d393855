"""Every case that the original code answered, counted: one line a kind at the end of the run.

The cases lie in the folder `GCD_REALDATA`, in the names and forms of the benchmarks' own files and
of the recorded answers; without it these tests skip. A test reads all cases of one kind, hands
`tally` which of them agree, and is named after the kind.
"""

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

Results = Mapping[str, bool] | Iterable[tuple[str, bool]]
RealData = Callable[..., Path]
Tally = Callable[..., None]


class Counted(NamedTuple):
    """One kind of cases: how many there are and which of them do not agree."""

    kind: str
    cases: int
    failed: list[str]
    minimum_share: float

    @property
    def share(self) -> float:
        return (self.cases - len(self.failed)) / self.cases

    @property
    def line(self) -> str:
        wanted = "" if self.minimum_share == 1 else f" (at least {self.minimum_share:.3f} wanted)"
        failed = f", failed{wanted}: {', '.join(self.failed)}" if self.failed else ""
        return f"{self.kind}: cases {self.cases}, passed {self.cases - len(self.failed)}{failed}"


COUNTED = pytest.StashKey[list[Counted]]()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """`tally(kind, results, minimum_share=1.0)`: count the cases, and assert that enough agree.

    `results` says of each case, by its id, whether it agrees with the original.
    """

    def count(kind: str, results: Results, minimum_share: float = 1.0) -> None:
        pairs = list(results.items() if isinstance(results, Mapping) else results)
        assert pairs, f"{kind}: no cases"
        counted = Counted(kind, len(pairs), [name for name, ok in pairs if not ok], minimum_share)
        request.node.stash.setdefault(COUNTED, []).append(counted)
        assert counted.share >= minimum_share, counted.line

    return count


@pytest.fixture
def realdata() -> RealData:
    """`realdata("os", "oracle")`: a file or folder below `GCD_REALDATA`; skips if there is none."""

    def find(*parts: str) -> Path:
        folder = os.environ.get("GCD_REALDATA")
        if not folder:
            pytest.skip("GCD_REALDATA is not set: no benchmark data to compare with")
        path = Path(folder, *parts)
        if not path.exists():
            pytest.skip(f"{path} is missing")
        return path

    return find


LINES = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep a line for the summary: the kinds that were counted, or why there are none."""
    report = yield
    counted = [one.line for one in item.stash.get(COUNTED, [])]
    name = item.name.removeprefix("test_").replace("_", " ")
    lines = item.config.stash.setdefault(LINES, [])
    if report.skipped:
        assert call.excinfo is not None
        reason = str(call.excinfo.value).removeprefix("Skipped: ")
        lines.extend([*counted, f"{name}: skipped, {reason}"])
    elif report.when == "call":
        lines.extend(counted or [f"{name}: {report.outcome}, nothing counted"])
    elif report.failed:
        lines.append(f"{name}: failed in its {report.when}")
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the lines."""
    if config.stash.get(LINES, []):
        terminalreporter.section("conformance")
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)
