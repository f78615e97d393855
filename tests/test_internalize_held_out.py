"""Which inputs are held out, and how far one version of a prompt is from the next."""

from pathlib import Path

import pytest

from gcd.core.errors import UserError
from gcd.internalize import held_out
from gcd.internalize.drift import comparable, compare_replies
from gcd.internalize.formats import Format
from gcd.internalize.outcome import Reply
from gcd.internalize.settings import HeldOutSettings
from tests.test_internalize_measures import BOOTSTRAP, TEXTS, exactly


def test_held_out_inputs_are_in_no_form_among_those_of_training() -> None:
    made = ["Where is it?", "where  is IT", "How much?", "Who?", "How much"]
    assert held_out.unseen(made, ["who", "What?"]) == ["Where is it?", "How much?"]


def test_both_kinds_of_inputs_are_made_and_the_final_params_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out ones first, so that training's are what lies there when the rest runs."""
    texts = {"seed: 9\n": ["a b", "c d", "e f"], "seed: 0\n": ["C d.", "g h"]}
    ran: list[str] = []

    def drive(folder: Path, params: str, stages: list[str]) -> None:
        ran.append(params)
        path = folder / held_out.MADE
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f'{{"index": {n}, "text": "{text}"}}' for n, text in enumerate(texts[params])]
        path.write_text("\n".join(lines) + "\n")

    monkeypatch.setattr(held_out, "drive", drive)
    monkeypatch.setattr(held_out, "held_out_params", lambda text, settings: "seed: 9\n")
    settings = HeldOutSettings(count=3, minimum=2, seed=9)
    assert held_out.make_held_out(tmp_path, "seed: 0\n", settings) == ["a b", "e f"]
    assert ran == ["seed: 9\n", "seed: 0\n"]
    written = (tmp_path / "data/prompts/custom/held_out.jsonl").read_text()
    assert written == '{"input":"a b"}\n{"input":"e f"}\n'
    few = settings.model_copy(update={"minimum": 3})
    with pytest.raises(UserError, match=r"3 held-out inputs are needed, and of 3 only 2 are not"):
        held_out.make_held_out(tmp_path, "seed: 0\n", few)


def test_too_few_held_out_inputs_name_the_number_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drive(folder: Path, params: str, stages: list[str]) -> None:
        raise UserError("make_pseudo_inputs.minimum: at least 12 are needed, only 3 usable")

    monkeypatch.setattr(held_out, "drive", drive)
    monkeypatch.setattr(held_out, "held_out_params", lambda text, settings: text)
    with pytest.raises(UserError, match=r"`held_out\.minimum` in internalize\.yaml: .*only 3 us"):
        held_out.make_held_out(tmp_path, "", HeldOutSettings(count=3, minimum=2, seed=9))


def test_drift_is_over_inputs_that_neither_version_trained_on() -> None:
    before = [
        Reply(index=text, source="user", input=text, replies={"gcd": text}, kl=0.1)
        for text in ("a", "B?", "c")
    ]
    assert [one.input for one in comparable(before, ["b", "x"])] == ["a", "c"]


def test_drift_by_hand() -> None:
    found = compare_replies(
        ["yes", "no", "aaaa"],
        ["yes", "nono", "aaaa"],
        Format("regular expression", "yes|no"),
        lambda ours, theirs: [1.0, 0.5, 0.0],
        BOOTSTRAP,
    )
    assert found["exact_agreement"]["value"] == 0.6667
    assert found["semantic_agreement"]["value"] == 0.5
    assert found["format_validity"]["value"] == 0.3333
    assert found["length_ratio"]["value"] == round(11 / 9, 4)
    same = compare_replies(TEXTS, TEXTS, None, None, BOOTSTRAP)
    assert same["exact_agreement"]["value"] == 1
    assert same["length_ratio"] == exactly(1.0)
    assert compare_replies([], [], None, None, BOOTSTRAP) == {}
