"""The run of one prompt: a git worktree of the last commit, with the prompt and params of its own.

As for the points of ablations (`gcd.experiments.worktrees`): the workspace is not touched, DVC's
cache is shared, and what a kill left goes on. The worktree stays when the run is over: an edited
prompt finds there what did not change, and the base model above all, which is in no cache.
"""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.params import FILE
from gcd.core.records import write_text
from gcd.experiments.worktrees import (
    BASE,
    FORCE,
    SUMMARIES,
    bind,
    call,
    dvc,
    environment,
    link_base,
)
from gcd.internalize.checks import Asked
from gcd.tasks.custom.inputs import OWN, SYNTHESISED, inputs_text

FOLDER = Path(".work/internalize")
DATA = Path("data/prompts/custom")
PROMPT = DATA / "prompt.md"
# What the run is of: these must be as the commit has them.
CODE = ["gcd", "stages", "profiles", "data/probes", "dvc.yaml", str(FILE)]
ADVICE = (
    "What was rejected stands there with the reason. Give INPUTS (a few messages of your own "
    "users), demonstration turns in the prompt that show how to reply, or a stronger MODEL."
)


def clean_commit() -> str:
    """The last commit; raises UserError if code or params differ from it."""
    changed = call("git", "status", "--porcelain", "--", *CODE).splitlines()
    if changed:
        raise UserError(
            f"The last commit is run, and {changed[0][3:]} differs from it. Commit your changes, "
            "or drop them (`git checkout params.yaml` ends a profile)."
        )
    return call("git", "rev-parse", "HEAD").strip()


def prepare(name: str, commit: str) -> Path:
    """The worktree of the run `name`, at `commit`, with a base model if there is one on disk.

    Which model is asked for does not matter here: DVC compares, and makes another in its place.
    """
    folder = FOLDER / name
    if (folder / ".git").exists():
        if call("git", "rev-parse", "HEAD", folder=folder).strip() != commit:
            call("git", "checkout", "--quiet", "--force", "--detach", commit, folder=folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        call("git", "worktree", "prune")
        call("git", "worktree", "add", *FORCE, "--quiet", "--detach", str(folder), commit)
    dvc("config", "--local", "cache.dir", dvc("cache", "dir").strip(), folder=folder)
    known = [path for path in (BASE, *sorted(FOLDER.glob(f"*/{BASE}"))) if path.exists()]
    if known:
        link_base(known[0], folder)
    return folder


def write_inputs(folder: Path, asked: Asked) -> None:
    """Put the prompt and the user's inputs where the task `custom` reads them.

    Without held-out inputs, unless those of an earlier run are there.
    """
    write_text(folder / PROMPT, asked.prompt + "\n")
    write_text(folder / DATA / OWN, inputs_text(asked.inputs))
    if not (folder / DATA / SYNTHESISED).exists():
        write_text(folder / DATA / SYNTHESISED, "")


def write_previous_adapter(folder: Path, adapter: Path, place: str) -> None:
    """Put the adapter that training begins with where params.yaml says, below `folder`."""
    new = folder / place
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(adapter, new)


def drive(folder: Path, params: str, stages: list[str]) -> None:
    """Run `stages` and what they need with the text `params` as params.yaml, showing how it goes.

    Raises:
        UserError: a stage failed; with the stage's last line.
        KeyboardInterrupt: Ctrl-C; nothing runs any more.
    """
    if (folder / FILE).read_text(encoding="utf-8") != params:
        write_text(folder / FILE, params)
    process = subprocess.Popen(
        [sys.executable, "-m", "gcd.repro", "--stages", ",".join(stages)],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which tells the driver
        # Killed with this process, by `kill -9` too.
        preexec_fn=partial(bind, os.getpid(), os.sched_getaffinity(0)),  # noqa: PLW1509
    )
    try:
        said = process.communicate()[1].strip()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    if process.returncode:
        lines = said.splitlines() or ["no output"]
        hint = f" {ADVICE}" if ".minimum" in lines[-1] else ""
        raise UserError(f"{lines[-1]}{hint} (Whole output: {folder}/logs/.)")


def save(folder: Path, name: str) -> str:
    """Save the run as a DVC experiment; returns its name."""
    saved = f"internalize-{name}"
    options = ["--quiet", "--force", "--name", saved, "--include-untracked", str(DATA)]
    dvc("exp", "save", *options, *SUMMARIES, folder=folder)
    return saved
