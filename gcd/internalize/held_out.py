"""Inputs that no training sees: synthesised as those of training are, from another stream.

The stage `make_pseudo_inputs` runs twice in the worktree: once with the seed of internalize.yaml,
once with that of params.yaml. What both made up is dropped from the first, so that nothing that is
trained on is tested. The user's own inputs are held out, too: synthesis is shown them and rejects
what repeats them. DVC keeps both runs in its cache.
"""

from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.records import PseudoInput, read_records, write_text
from gcd.internalize.run_params import TASK, held_out_params
from gcd.internalize.settings import HeldOutSettings
from gcd.internalize.worktree import DATA, drive
from gcd.tasks.custom.inputs import SYNTHESISED, inputs_text

STAGE = f"make_pseudo_inputs@{TASK}"
MADE = Path("data/pseudo", TASK, "inputs.jsonl")


def plain(text: str) -> str:
    """What two inputs have in common that are the same but for case, space and the last mark."""
    return " ".join(text.casefold().split()).rstrip(".?!")


def unseen(held_out: list[str], trained_on: list[str]) -> list[str]:
    """Those of `held_out` that training does not see, each once."""
    seen = {plain(text) for text in trained_on}
    found = []
    for text in held_out:
        if plain(text) not in seen:
            found.append(text)
            seen.add(plain(text))
    return found


def make_inputs(folder: Path, params: str) -> list[str]:
    """What the stage makes up in the worktree with the text `params` as params.yaml."""
    drive(folder, params, [STAGE])
    return [one.text for one in read_records(folder / MADE, PseudoInput)]


def make_held_out(folder: Path, params: str, settings: HeldOutSettings) -> list[str]:
    """Synthesise both kinds of inputs in the worktree, and write down those that are held out.

    Raises:
        UserError: too few of either kind; see also `worktree.drive`.
    """
    try:
        tested = make_inputs(folder, held_out_params(params, settings))
    except UserError as error:
        raise UserError(
            f"Of the held-out inputs, whose least number is `held_out.minimum` in "
            f"internalize.yaml: {error}"
        ) from error
    trained_on = make_inputs(folder, params)
    held_out = unseen(tested, trained_on)
    if len(held_out) < settings.minimum:
        raise UserError(
            f"internalize.yaml: key `held_out.minimum`: {settings.minimum} held-out inputs are "
            f"needed, and of {len(tested)} only {len(held_out)} are not among the "
            f"{len(trained_on)} of training. Raise `held_out.count`, or give more varied INPUTS."
        )
    write_text(folder / DATA / SYNTHESISED, inputs_text(held_out))
    return held_out
