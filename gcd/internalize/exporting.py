"""exports/<name>/: the adapter with its card, what else was asked for, and the report."""

import json
import logging
import shutil
from contextlib import chdir
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.records import write_text
from gcd.exports.converter import fetch_converter
from gcd.exports.facts import FIDELITY, find_adapter
from gcd.exports.settings import read_settings
from gcd.exports.writing import write_exports
from gcd.internalize.checks import EXPORTS, Asked, check_name
from gcd.internalize.outcome import Outcome, Reply, write_outcome
from gcd.internalize.report import render
from gcd.internalize.run_params import TASK, load
from gcd.internalize.settings import Settings
from gcd.report.page import render_page

UNFINISHED = Path(".work/exports")


def check_exports(asked: Asked, params: str) -> None:
    """Raise UserError if what is asked for beside the adapter could not be written in the end.

    Args:
        asked: what was asked for.
        params: the text of the run's params.yaml.
    """
    quantization = load(params)["model"]["quantization"]
    if quantization != "none" and (asked.merged or "merged" in asked.gguf):
        raise UserError(
            f"MERGED and GGUF=merged: model.quantization is {quantization}, and merged into other "
            "weights than it is trained on the adapter would answer differently. Leave them out."
        )
    if asked.gguf:
        fetch_converter(read_settings().converter)


def write_adapter(asked: Asked, folder: Path, outcome: Outcome) -> Path:
    """The student's adapter with its card, and what else was asked for, in a folder to be renamed.

    Empty where the student failed, or where its row has no LoRA adapter; that is logged.

    Args:
        asked: what was asked for.
        folder: the worktree.
        outcome: whose measures the card gives.

    Raises:
        UserError: see `write_exports`.
    """
    new, at = (UNFINISHED / asked.name).absolute(), (EXPORTS / asked.name).absolute()
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with chdir(folder):
        try:
            find_adapter(TASK, outcome.student)
        except UserError as error:
            logging.info("%s: no adapter to take home. %s", asked.name, error)
            return new
        scores = {
            row: {f"fidelity_{measure}": estimate for measure, estimate in found.items()}
            for row, found in outcome.scores.items()
        }
        write_text(FIDELITY, json.dumps({TASK: scores}, indent=2) + "\n")
        new.rmdir()
        again = f"cd {folder} && python -m gcd.exports {TASK} {outcome.student} --to NEW_FOLDER"
        write_exports(
            TASK,
            outcome.student,
            new,
            at=at,
            merged=asked.merged,
            gguf=asked.gguf,
            again=again,
            replace=False,
        )
    return new


def export(
    asked: Asked, outcome: Outcome, replies: list[Reply], settings: Settings, new: Path
) -> Path:
    """Add the report to the folder `new` and make it exports/<name>/, never over another.

    Raises:
        UserError: the folder has come into being in the meantime.
    """
    text = render(outcome, replies, settings)
    write_text(new / "report.md", text)
    write_text(new / "report.html", render_page(text, new))
    write_outcome(outcome, replies, new)
    return move_into_place(new, asked.name)


def move_into_place(new: Path, name: str) -> Path:
    """Rename the finished folder `new`; raises UserError if the export's is there by now."""
    folder = check_name(name)
    EXPORTS.mkdir(exist_ok=True)
    new.rename(folder)
    return folder
