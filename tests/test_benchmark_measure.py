"""What the benchmarks do with numbers, by hand; what they measure, on work of known size."""

import time

import pytest

from benchmarks.measure import alternate, compare, grow, growth_exponent, run_once, spread
from benchmarks.results import Bar, read_record, table, write_record
from benchmarks.settings import TrainEpochSettings, read_settings
from gcd.core.errors import UserError
from tests.conftest import ROOT

AT_LEAST_2 = Bar(kind="at least", value=2.0)


def test_median_and_range():
    values = spread([3.0, 1.0, 10.0], "s")
    assert (values.median, values.low, values.high, values.unit) == (3.0, 1.0, 10.0, "s")
    assert spread([1.0, 2.0], "s").median == 1.5


def test_the_ratio_is_that_of_pairs_and_not_of_medians():
    """Pairs 2/1, 12/4 and 10/2: their median is 3, where the ratio of the medians is 5."""
    made = compare("time", [1.0, 4.0, 2.0], [2.0, 12.0, 10.0], "s", bar=AT_LEAST_2)
    assert (made.ours.median, made.reference.median) == (2.0, 10.0)
    assert (made.ratio.median, made.ratio.low, made.ratio.high) == (3.0, 2.0, 5.0)
    assert made.ratio_of == "reference / ours"
    inverse = compare("memory", [1.0, 4.0], [2.0, 16.0], "MiB", bar=None, inverse=True)
    assert (inverse.ratio.low, inverse.ratio.high) == (0.25, 0.5)
    assert inverse.met() is None


@pytest.mark.parametrize(
    ("kind", "ratio", "met"),
    [
        ("at least", 2.0, True),
        ("at least", 1.999, False),
        ("at most", 2.0, True),
        ("at most", 2.001, False),
    ],
)
def test_a_bar_is_met_at_its_value(kind, ratio, met):
    made = compare("time", [1.0], [ratio], "s", bar=Bar(kind=kind, value=2.0))
    assert made.met() is met


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(exponent):
    sizes = [250, 500, 1000, 4000]
    values = [3.0 * size**exponent for size in sizes]
    assert growth_exponent(sizes, values) == pytest.approx(exponent, abs=1e-9)


def test_the_exponent_is_a_fit_by_least_squares():
    """In logarithms to base 2: (0, 0), (1, 2), (2, 1); the slope is cov / var = 1 / 2."""
    assert growth_exponent([1, 2, 4], [1, 4, 2]) == pytest.approx(0.5)


def test_growth_is_held_against_linear_growth_from_the_smallest():
    """Twice the size, in the repeats 3 and 4 times the time: worse than linear in both."""
    bar = Bar(kind="at most", value=1.05)
    made = grow("time", [100, 200], [[1.0, 1.0], [3.0, 4.0]], "s", bar)
    assert made.reference.median == 2.0
    assert (made.ratio.low, made.ratio.high) == (1.5, 2.0)
    assert made.exponent and made.exponent.high == pytest.approx(2.0)
    assert made.met() is False
    assert grow("time", [100, 200], [[1.0], [2.0]], "s", bar).met() is True


def test_sides_take_turns_and_warming_up_does_not_count():
    calls: list[str] = []
    sides = {
        "ours": lambda repeat: calls.append(f"ours {repeat}"),
        "reference": lambda repeat: calls.append(f"reference {repeat}"),
    }
    runs = alternate(sides, 2, [lambda: calls.append("warm")])
    assert calls == ["warm", "ours 0", "reference 0", "ours 1", "reference 1"]
    assert [len(made) for made in runs.values()] == [2, 2]


def test_time_and_memory_are_those_of_the_run():
    """A run that fills 200 MiB, then one that fills 10 after it: each has its own peak."""

    def fill(mebibytes: int) -> int:
        block = bytearray(mebibytes * 2**20)
        time.sleep(0.05)
        return len(block)

    runs = alternate({"large": lambda _: fill(200), "small": lambda _: fill(10)}, 2, [])
    for run in runs["large"]:
        assert 195 < run.peak_bytes / 2**20 < 230
        assert 0.05 <= run.seconds < 5
        assert run.result == 200 * 2**20
    for run in runs["small"]:
        assert 5 < run.peak_bytes / 2**20 < 40


def test_memory_counts_above_the_baseline():
    assert run_once(lambda: None, 2**50).peak_bytes < 0


def test_records_come_back_and_the_table_says_what_is_met(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = compare("time of a step", [1.0], [2.5], "s", bar=AT_LEAST_2)
    bad = compare("peak memory", [1234.0], [1.0], "MiB", bar=AT_LEAST_2)
    written = write_record("train_step", [good, bad], 1, {"seed": 0}, {"steps": 3})
    assert read_record("train_step") == written
    assert written.host["threads"] >= 1
    assert written.met() is True
    assert [one.met() for one in written.further] == [False]
    lines = table([written]).splitlines()
    assert lines[2] == (
        "| train_step | time of a step | 1.00 (1.00-1.00) s | 2.50 (2.50-2.50) s "
        "| 2.50 (2.50-2.50) | at least 2.00 | yes |"
    )
    assert "1,234 (1,234-1,234) MiB" in lines[3]
    assert lines[3].endswith("| at least 2.00 | **no** |")
    assert read_record("limit") is None


def test_a_file_of_another_kind_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports/benchmarks").mkdir(parents=True)
    (tmp_path / "reports/benchmarks/limit.json").write_text("{}")
    with pytest.raises(UserError, match=r"limit\.json: not a benchmark's record"):
        read_record("limit")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  repeats: 3\n  at_least: 1.8", "  at_least: 1.8", r"`train_epoch\.repeats` is missing"),
        ("  at_least: 1.8", "  at_least: fast", r"`train_epoch\.at_least`: .*got 'fast'"),
        ("train_epoch:", "train_epochs:", "key `train_epoch` is missing"),
    ],
)
def test_settings_are_strict(tmp_path, monkeypatch, old, new, message):
    text = (ROOT / "benchmarks/settings.yaml").read_text()
    assert old in text
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/settings.yaml").write_text(text.replace(old, new))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"benchmarks/settings.yaml: .*{message}"):
        read_settings("train_epoch", TrainEpochSettings)
