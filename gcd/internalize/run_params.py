"""The params.yaml of a run: the committed one, profiles/internalize.yaml, and what is asked for."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.params import FILE, check_sections, every_section
from gcd.experiments.points import nest
from gcd.internalize.settings import HeldOutSettings
from gcd.profiles import FOLDER, change_params, merge_profile, replace_modules

TASK = "custom"
PROFILE, EVERY_ROW, WARM_START = "internalize", "all", "warm_start"
# What takes the place of the row `gcd` in a run that begins with an earlier adapter.
WARM_STARTED = {"gcd": "gcd_warm_start"}


def load(text: str) -> dict[str, Any]:
    """What a params.yaml says."""
    params: dict[str, Any] = YAML(typ="safe").load(text)
    return params


def run_params(
    committed: str,
    model: str | None,
    methods: list[str],
    adapter: str | None = None,
    folder: Path = FOLDER,
) -> str:
    """The text for training and evaluation.

    Args:
        committed: params.yaml of the last commit.
        model: see `checks.check_model`; None: that of params.yaml.
        methods: to train beside those of the profile; params.yaml or profiles/all.yaml has them.
        adapter: SHA-256 of the weights that training begins with; None: of a fresh adapter.
        folder: of the profiles.

    Raises:
        UserError: no such method, or the result is not valid.
    """
    text = merge_profile(committed, PROFILE, folder)
    has, known = load(text)["methods"], load(merge_profile(committed, EVERY_ROW, folder))["methods"]
    for name in methods:
        if name not in known:
            raise UserError(f"ROWS: no method {name!r}; there are {', '.join(known)}.")
    new = {name: known[name] for name in methods if name not in has}
    text = replace_modules(text, "methods", new, [])
    if adapter is not None:
        text = merge_profile(text, WARM_START, folder)
        changes = {"methods": {WARM_STARTED["gcd"]: {"sha256": adapter}}}
        text = change_params(text, [changes], FILE)
    if model is not None:
        repository, _, revision = model.partition("@")
        source = "hub" if revision and not Path(model).is_absolute() else "path"
        place = {"id": repository, "revision": revision} if source == "hub" else {"folder": model}
        text = change_params(text, [{"prepare_model": {"source": source, source: place}}], FILE)
    params = load(text)
    check_sections(params, *every_section(params))
    return text


def held_out_params(text: str, settings: HeldOutSettings) -> str:
    """The same for the inputs that are held out: another stream, another number."""
    changes = {
        "seed": settings.seed,
        f"tasks.{TASK}.synthesis.inputs": settings.count,
        "make_pseudo_inputs.minimum": settings.minimum,
    }
    return change_params(text, [nest(key, value) for key, value in changes.items()], FILE)
