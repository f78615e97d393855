"""The generated shell tasks: the same for the same seed, balanced, all different, well formed."""

import random
import re
from collections import Counter
from typing import Any

import pytest

from gcd.core.errors import UserError
from gcd.tasks.os_interaction.generator import FAMILIES, generate

ABSOLUTE_PATH = re.compile(r"(?<!\S)/[a-z]+(?:/[a-z]+)+(?:\.[a-z]+)?")


def test_same_seed_same_samples_and_other_seeds_others() -> None:
    assert generate("one", 64, set()) == generate("one", 64, set())
    first = {sample["description"] for sample in generate("one", 64, set())}
    second = {sample["description"] for sample in generate("two", 64, set())}
    assert len(first & second) < 8


def test_a_smaller_count_is_a_prefix() -> None:
    assert generate("one", 64, set())[:19] == generate("one", 19, set())
    assert generate("one", 0, set()) == []


def test_families_are_balanced_and_interleaved() -> None:
    rounds, extra = 3, 5
    samples = generate("balance", rounds * len(FAMILIES) + extra, set())
    names = [sample["labels"][1] for sample in samples]
    assert names == (list(FAMILIES) * (rounds + 1))[: len(samples)]
    assert set(Counter(names).values()) == {rounds, rounds + 1}


def test_no_two_descriptions_are_equal_and_none_is_taken() -> None:
    samples = generate("unique", 20 * len(FAMILIES), set())
    descriptions = {sample["description"] for sample in samples}
    assert len(descriptions) == len(samples)
    others = generate("unique", 20 * len(FAMILIES), descriptions)
    assert len(others) == len(samples)
    assert not descriptions & {sample["description"] for sample in others}


def test_a_repeated_draw_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def coin(rng: random.Random) -> dict[str, Any]:
        return {"description": rng.choice("ab"), "create": {"init": {"code": ""}}}

    # Only this family: two samples exist, so any two must be both of them.
    for name in list(FAMILIES):
        monkeypatch.delitem(FAMILIES, name)
    monkeypatch.setitem(FAMILIES, "coin", ("easy", coin))
    for seed in "abcdefgh":
        assert {sample["description"] for sample in generate(seed, 2, set())} == {"a", "b"}
    with pytest.raises(UserError, match="no new `coin` sample after 2 samples"):
        generate("a", 3, set())


def test_both_tiers_have_enough_families() -> None:
    tiers = Counter(tier for tier, _ in FAMILIES.values())
    assert set(tiers) == {"easy", "hard"}
    assert min(tiers.values()) >= 6


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_follow_the_schema(family: str) -> None:
    samples = [s for s in generate("schema", 20 * len(FAMILIES), set()) if s["labels"][1] == family]
    assert len(samples) == 20
    for sample in samples:
        assert set(sample) == {"description", "create", "evaluation", "labels"}
        assert sample["labels"] == [FAMILIES[family][0], family]
        kind = set(sample["evaluation"]) - {"example"}
        assert kind in ({"match"}, {"check"})
        if kind == {"match"}:
            answer = sample["evaluation"]["match"]
            assert answer
            assert answer == answer.strip()
            assert "\n" not in answer


@pytest.mark.parametrize("family", FAMILIES)
def test_descriptions_name_the_path_that_fixture_and_example_use(family: str) -> None:
    for sample in generate("paths", 20 * len(FAMILIES), set()):
        if sample["labels"][1] != family:
            continue
        (path,) = ABSOLUTE_PATH.findall(sample["description"])
        # What is to be created is not in the fixture, but its directory is.
        made = family in ("create_file", "make_directory")
        assert (path.rpartition("/")[0] if made else path) in sample["create"]["init"]["code"]
        assert path in sample["evaluation"]["example"]["code"]
