"""Records of ablations and seeds: collected, summarised by hand-computed numbers, and shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.experiments.collecting import ablation_frame, changes_text, seeds_frame
from gcd.experiments.definitions import Ablation, Ablations
from gcd.experiments.drawing import DRAWN, draw_points, numbers_of
from gcd.experiments.points import DEFAULT, Point
from gcd.experiments.records import (
    ABLATION_COLUMNS,
    SEED_COLUMNS,
    ablation_file,
    metrics_of,
    read_record,
    spread,
    write_record,
)
from gcd.experiments.showing import (
    points_table,
    render_ablations,
    summarise_points,
    what_it_takes,
)
from gcd.experiments.showing_seeds import over_seeds, render_seeds, seeds_table
from gcd.report.figures import save
from tests.test_reporting import make_results

HERE = make_results(["ls"])
TRAINING = {"optimizer_steps": 42, "supervised_tokens": 15000, "flops": 3 * 10**9}
DEFINED = Ablations(
    task="os",
    method="gcd",
    ablations={
        "weight": Ablation(question="How <much>?", axis="λ", points={0.1: {"a.b": 1}}),
        "rank": Ablation(question="How large?", axis="rank", points={4: {"c": 4}}),
    },
)


def point(name: str, label: Any, **changes: Any) -> Point:
    return Point(name, label, changes, "", {}, [])


def estimate(value: float, low: float, high: float, n: int = 10) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


def outcome(success: dict[str, float] | None, row: str = "gcd") -> dict[str, Any]:
    """What an experiment saved; None: the row failed."""
    if success is None:
        return {"scores": {"os": {}}, "costs": {"os": {}}}
    scores = {"success_rate": success, "valid_action_rate": estimate(1, 0.9, 1, 30)}
    return {
        "scores": {"os": {row: scores}},
        "costs": {"os": {row: {"training": {**TRAINING, "read_tokens": 1}}}},
    }


POINTS = [point("weight-0.1", 0.1, x=0.1), point(DEFAULT, 0.7, x=0.7), point("weight-1.0", 1.0)]


def saved(*successes: dict[str, float] | None) -> dict[str, Any]:
    return {one.name: outcome(success) for one, success in zip(POINTS, successes, strict=True)}


def record(tmp_path: Path, *successes: dict[str, float] | None) -> pd.DataFrame:
    """A record that went through its file."""
    path = tmp_path / "weight.csv"
    write_record(ablation_frame(POINTS, saved(*successes), "os", "gcd"), path)
    found = read_record(path, ABLATION_COLUMNS)
    assert found is not None
    return found


LOW, MIDDLE, HIGH = estimate(0.1, 0.02, 0.3), estimate(0.3, 0.2, 0.5), estimate(0.7, 0.4, 0.9)


def test_a_record_has_every_point_and_metric_and_comes_back(tmp_path: Path) -> None:
    found = record(tmp_path, LOW, MIDDLE, None)
    lines = (tmp_path / "weight.csv").read_text().splitlines()
    assert lines[1] == "os,gcd,0.1,False,x=0.1,success_rate,0.1,0.02,0.3,10,42,15000,3000000000"
    assert lines[-1] == "os,gcd,1.0,False,,failed,,,,,,,"
    assert list(found["point"]) == ["0.1", "0.1", "0.7", "0.7", "1.0"]
    assert list(found["default"]) == [False, False, True, True, False]
    assert found.loc[2, "value"] == 0.3
    assert not list(tmp_path.glob("*.tmp"))


def test_changes_as_dvc_takes_them() -> None:
    assert changes_text({"a.b": 0.5, "c": None}) == "a.b=0.5 c=null"
    assert changes_text({}) == ""


def test_a_record_of_other_columns_or_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "no.csv", SEED_COLUMNS) is None
    path = tmp_path / "bad.csv"
    path.write_text("task,seed\nos,1\n")
    with pytest.raises(UserError, match=r"expected lines with the columns task, seed, row, metric"):
        read_record(path, SEED_COLUMNS)


def test_a_line_a_point(tmp_path: Path) -> None:
    table = points_table(record(tmp_path, LOW, MIDDLE, None))
    assert list(table["Point"]) == ["0.1", "0.7 (default)", "1.0"]
    assert list(table["Success (%)"]) == ["10.0 (2.0-30.0)", "30.0 (20.0-50.0)", "failed"]
    assert list(table["Teacher agreement (%)"]) == ["n/a", "n/a", "failed"]
    assert list(table["Steps"]) == ["42", "42", "n/a"]
    assert list(table["Supervised tokens"]) == ["15,000", "15,000", "n/a"]
    assert list(table["Training GFLOP"]) == ["3", "3", "n/a"]


def test_the_sentence_says_whether_the_extremes_are_told_apart(tmp_path: Path) -> None:
    apart = summarise_points(record(tmp_path, LOW, MIDDLE, HIGH))
    assert "highest at 1.0 (70.0 %) and lowest at 0.1 (10.0 %), on 10 samples." in apart
    assert "the extremes of 3 points, do not overlap" in apart.replace("\n", " ")
    near = summarise_points(record(tmp_path, LOW, MIDDLE, None))
    assert "does not show that the points differ" in near.replace("\n", " ")
    assert "30.0 % at every point" in summarise_points(record(tmp_path, MIDDLE, MIDDLE, MIDDLE))
    assert summarise_points(record(tmp_path, None, MIDDLE, None)) == ""


def test_the_summary_names_the_ablations_whose_extremes_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of records of this run: one that is told apart, one that is not; none of another run."""
    monkeypatch.chdir(tmp_path)
    for folder in ("experiments", "reports/ablations"):
        Path(folder).mkdir(parents=True)
    YAML().dump(DEFINED.model_dump(), Path("experiments/ablations.yaml"))
    assert what_it_takes([HERE]) == ""
    mine = own()["scores"]["os"]["gcd"]["success_rate"]
    below = estimate(0.0, 0.0, mine["low"] / 2)
    for name, other in (("weight", below), ("rank", mine)):
        made = ablation_frame(POINTS, {**saved(other, mine, mine), DEFAULT: own()}, "os", "gcd")
        write_record(made, ablation_file(name))
    text = what_it_takes([HERE]).replace("\n", " ")
    assert "do not overlap: with weight it is highest at 0.7 and 1.0 (" in text
    assert "and lowest at 0.1 (0.0 %)." in text
    assert "With rank the best and the worst point overlap" in text
    elsewhere = replace(HERE, scores={**HERE.scores, "gcd": HERE.scores["no_prompt"]})
    assert what_it_takes([elsewhere]) == ""


def own() -> dict[str, Any]:
    """The scores of the run at hand's row, as an experiment would have saved them."""
    return {"scores": {"os": {"gcd": HERE.scores["gcd"]}}, "costs": HERE.costs}


def test_a_record_is_shown_where_its_default_is_the_row_of_this_run(tmp_path: Path) -> None:
    made = ablation_frame(POINTS, {**saved(LOW, MIDDLE, HIGH), DEFAULT: own()}, "os", "gcd")
    text = render_ablations(DEFINED, {"weight": made}, [HERE], tmp_path)
    assert "### Ablation: weight" in text
    assert r"How \<much\>?" in text
    assert "| 0.7 (default) |" in text
    assert "figures/ablation_weight.svg" in text
    assert "rank is not recorded yet." in text
    assert (tmp_path / "figures/ablation_weight.png").stat().st_size > 0
    assert (tmp_path / "tables/ablation_weight.md").read_text() in text + "\n"


@pytest.mark.parametrize("changed", ["another score", "failed there", "failed here", "no task"])
def test_a_record_of_another_run_is_named_and_not_shown(tmp_path: Path, changed: str) -> None:
    there, here = own(), HERE
    if changed == "another score":
        scores = {**HERE.scores["gcd"], "success_rate": LOW}
        there["scores"] = {"os": {"gcd": scores}}
    elif changed == "failed there":
        there = outcome(None)
    elif changed == "failed here":
        here = replace(HERE, scores={row: HERE.scores[row] for row in ("full_prompt", "seqkd")})
    else:
        here = replace(HERE, task="web")
    made = ablation_frame(POINTS, {**saved(LOW, MIDDLE, HIGH), DEFAULT: there}, "os", "gcd")
    text = render_ablations(DEFINED, {"weight": made}, [here], tmp_path)
    assert "weight is recorded by another run" in text
    assert "|" not in text
    assert not list(tmp_path.iterdir())


def test_a_metric_that_is_new_since_makes_no_other_run(tmp_path: Path) -> None:
    """A record knows the metrics of its day; only those are compared."""
    there = own()
    scores = dict(HERE.scores["gcd"])
    del scores["mean_turns"]
    there["scores"] = {"os": {"gcd": scores}}
    made = ablation_frame(POINTS, {**saved(LOW, MIDDLE, HIGH), DEFAULT: there}, "os", "gcd")
    assert "### Ablation" in render_ablations(DEFINED, {"weight": made}, [HERE], tmp_path)


# --- Seeds ----------------------------------------------------------------------------------------


def seeds(*successes: dict[str, float] | None) -> pd.DataFrame:
    points = [point(f"seeds-{seed}", seed) for seed in range(len(successes))]
    found = {one.name: outcome(each) for one, each in zip(points, successes, strict=True)}
    return seeds_frame(points, found, "os", ["gcd"])


def test_spread_by_hand() -> None:
    """0.1, 0.3, 0.7, 0.5: mean 0.4, squares 0.09 + 0.01 + 0.09 + 0.01 = 0.2, over 3: 0.258."""
    values = [estimate(value, 0, 1) for value in (0.1, 0.3, 0.7, 0.5)]
    found = spread(seeds(*values)).set_index("metric").loc["success_rate"]
    assert found["count"] == 4
    assert found["mean"] == pytest.approx(0.4)
    assert found["std"] == pytest.approx((0.2 / 3) ** 0.5)
    assert (found["min"], found["max"]) == (0.1, 0.7)
    valid = spread(seeds(*values)).set_index("metric").loc["valid_action_rate"]
    assert (valid["mean"], valid["std"]) == (1.0, 0.0)


def test_a_seed_in_which_the_row_failed_counts_for_nothing() -> None:
    found = spread(seeds(LOW, None, MIDDLE)).set_index("metric").loc["success_rate"]
    assert (found["count"], found["mean"]) == (2, pytest.approx(0.2))


def test_the_table_has_the_interval_of_this_seed_beside_the_spread() -> None:
    table = seeds_table(seeds(LOW, MIDDLE, HIGH), 1)
    line = table[table["Metric"] == "success"].iloc[0]
    assert line["Seed 1, interval over samples (%)"] == "30.0 (20.0-50.0)"
    assert line["Mean over seeds (%)"] == "36.7"
    # Distances from 36.67: 26.67, 6.67, 33.33; squares 711, 44, 1111; half of the sum is 933.
    assert line["Standard deviation"] == "30.6"
    assert (line["Range"], line["Seeds"]) == ("10.0-70.0", "3")
    alone = seeds_table(seeds(LOW), 0)
    assert alone.iloc[0]["Standard deviation"] == "n/a"


def test_the_summary_has_the_spread_over_seeds_of_this_run() -> None:
    made = seeds(LOW, MIDDLE, HIGH)
    lines = made[made["seed"] == 1]
    here = replace(HERE, task="os", scores={**HERE.scores, "gcd": metrics_of(lines)})
    text = over_seeds(made, here, 1, "gcd").replace("\n", " ")
    assert "Over 3 seeds, of data and training, gcd has a mean success of 36.7 % in os" in text
    assert "standard deviation of 30.6 points (from 10.0 to 70.0 %)" in text
    assert over_seeds(made, here, 0, "gcd") == ""  # seed 0 came out otherwise
    assert over_seeds(made, here, 1, "seqkd") == ""
    assert over_seeds(lines, here, 1, "gcd") == ""  # one seed has no spread


def test_seeds_are_shown_where_this_seed_came_out_the_same(tmp_path: Path) -> None:
    points = [point(f"seeds-{seed}", seed) for seed in range(3)]
    found = {one.name: outcome(LOW) for one in points} | {"seeds-0": own()}
    made = seeds_frame(points, found, "os", ["gcd"])
    text = render_seeds(made, HERE, 0, tmp_path)
    assert text.startswith("## Seeds: os")
    assert "| gcd | success |" in text
    assert (tmp_path / "tables/seeds_os.md").exists()
    other = render_seeds(made, HERE, 1, tmp_path)
    assert "gcd came out differently with seed 1" in other.replace("\n", " ")
    assert "|" not in other


# --- The figure -----------------------------------------------------------------------------------


def places(frame: pd.DataFrame) -> list[float]:
    figure = draw_points(frame, "axis", DRAWN)
    return [float(tick) for tick in figure.axes[0].get_xticks()]


def test_numbers_stand_at_their_places(tmp_path: Path) -> None:
    assert places(record(tmp_path, LOW, MIDDLE, HIGH)) == pytest.approx([0, 0.6 / 0.9, 1])
    assert numbers_of(["4", "16.0"]) == [4.0, 16.0]
    assert numbers_of(["4", "default"]) is None


def test_wide_numbers_stand_at_their_logarithms_and_words_in_turn(tmp_path: Path) -> None:
    frame = record(tmp_path, LOW, MIDDLE, HIGH)
    wide = frame.assign(point=frame["point"].map({"0.1": "4", "0.7": "16", "1.0": "64"}))
    assert places(wide) == pytest.approx([0, 0.5, 1])
    words = frame.assign(point=frame["point"].map({"0.1": "own", "0.7": "a", "1.0": "b"}))
    assert places(words) == [0, 0.5, 1]


def test_a_figure_has_the_same_bytes_twice(tmp_path: Path) -> None:
    frame = record(tmp_path, LOW, MIDDLE, None)
    for name in "ab":
        save(draw_points(frame, "λ", DRAWN), tmp_path / name)
    for suffix in (".svg", ".png"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
