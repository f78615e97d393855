"""One point: its stages in a git worktree of the last commit, and the outcome as a DVC experiment.

A worktree shares git's references and configuration with the workspace and, once told so, DVC's
cache: stages whose params are those of a run that is known come out of it. The workspace itself is
not touched. `dvc exp run --queue` and `--temp` start from a temporary copy that is gone after a
kill, with a stage's unfinished work in it; a worktree lies under .work/ until its experiment is
saved, so the next run goes on where the last one was killed. Docs: docs/ablations.md.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.params import FILE
from gcd.core.records import write_text
from gcd.experiments.points import Point

FOLDER = Path(".work/experiments")
LOGS = Path("logs/experiments")
BASE = Path("models/base")
# What turns the rows' records into numbers. A point runs no other cell that it does not need, so
# the other rows in its scores are those of the commit.
SUMMARIES = ["score", "measure_cost"]
SCORES, COSTS = Path("reports/scores.json"), Path("reports/costs.json")
# An experiment is of a commit: these must be as the commit has them.
CODE = ["gcd", "stages", "experiments", "data/prompts", "dvc.yaml", "dvc.lock", str(FILE)]
# Twice: git locks a worktree while it makes it, and a kill leaves that lock.
FORCE = ["--force", "--force"]
PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
_C = ctypes.CDLL(None)  # opened here: between fork and exec that is not safe


def environment() -> dict[str, str]:
    """The environment in which `python` is this one."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def call(*command: str, folder: Path = Path()) -> str:
    """Run a command; returns its standard output. Raises UserError with its last line otherwise."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        raise UserError(f"`{' '.join(command)}` in {folder.absolute()}: {said[-1]}")
    return done.stdout


def dvc(*arguments: str, folder: Path = Path()) -> str:
    """`dvc` of this Python; see `call`."""
    return call(sys.executable, "-m", "dvc", *arguments, folder=folder)


def clean_commit() -> str:
    """The last commit.

    Raises:
        UserError: code, params or dvc.lock differ from it, or there is no base model here.
    """
    changed = call("git", "status", "--porcelain", "--", *CODE).splitlines()
    if changed:
        raise UserError(
            f"Experiments run the last commit, and {', '.join(line[3:] for line in changed[:3])} "
            f"{'and others differ' if len(changed) > 3 else 'differs'} from it. Commit the "
            "changes, or drop them."
        )
    if not BASE.exists():
        raise UserError(f"{BASE}: no such folder. Run `make repro` first: points start from it.")
    return call("git", "rev-parse", "HEAD").strip()


def reference(name: str, commit: str) -> str:
    """The git reference of an experiment, as DVC has it."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def read_saved(point: Point, commit: str) -> dict[str, Any] | None:
    """{"scores": …, "costs": …} of the point's experiment; None if it has not been saved.

    One of that name with other params, from an earlier definition, is none.
    """
    saved = reference(point.name, commit)
    if not call("git", "for-each-ref", saved):
        return None
    texts = {path: call("git", "show", f"{saved}:./{path}") for path in (FILE, SCORES, COSTS)}
    if YAML(typ="safe").load(texts[FILE]) != point.params:
        return None
    return {"scores": json.loads(texts[SCORES]), "costs": json.loads(texts[COSTS])}


def link_base(base: Path, folder: Path) -> None:
    """The base model of another folder in the worktree `folder`, if it has none: it is in no cache.

    Links: half a gigabyte that nothing writes to, as DVC removes a stage's outputs before it runs.
    Under another name first, so that a kill leaves no half of it.
    """
    if (folder / BASE).exists():
        return
    new = folder / ".work/base"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(base, new, copy_function=os.link)
    (folder / BASE).parent.mkdir(exist_ok=True)
    new.rename(folder / BASE)


def prepare(point: Point, commit: str) -> Path:
    """A worktree with the point's params.yaml and all outputs of the commit that are in the cache.

    One that a killed run left is used again, for the unfinished work in it.
    """
    folder = FOLDER / point.name
    if (folder / ".git").exists():
        call("git", "checkout", "--quiet", "--force", "--detach", commit, folder=folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        call("git", "worktree", "prune")
        call("git", "worktree", "add", *FORCE, "--quiet", "--detach", str(folder), commit)
    dvc("config", "--local", "cache.dir", dvc("cache", "dir").strip(), folder=folder)
    link_base(BASE, folder)
    dvc("checkout", "--quiet", "--force", "--allow-missing", folder=folder)
    write_text(folder / FILE, point.text)
    return folder


def start(point: Point, folder: Path, cores: set[int]) -> subprocess.Popen[bytes]:
    """Run the point's stages one after the other on `cores`; output goes to logs/experiments/."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{point.name}.log").open("wb") as log:
        return subprocess.Popen(
            command(point),
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the queue, which tells the points
            preexec_fn=partial(bind, os.getpid(), cores),  # noqa: PLW1509  (no thread runs here)
        )


def command(point: Point) -> list[str]:
    """What runs the stages: the driver of `make repro`, which a worktree has, too."""
    stages = ",".join(point.stages)
    return [sys.executable, "-m", "gcd.repro", "--jobs", "1", "--stages", stages]


def bind(parent: int, cores: set[int]) -> None:
    """In the new process: keep to `cores`, and be killed with the parent, by `kill -9` too."""
    os.sched_setaffinity(0, cores)
    _C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os.kill(os.getpid(), signal.SIGKILL)


def save(point: Point, folder: Path) -> None:
    """Score what was played, save the worktree as the point's experiment and remove it.

    Not for two points at a time: DVC's references for an experiment in the making belong to the
    repository, not to a worktree. Only `SUMMARIES` are named to `dvc exp save`: all others it would
    write down as computed with the point's params, and remember so in the cache.
    """
    dvc("repro", "--quiet", "--single-item", *SUMMARIES, folder=folder)
    dvc("exp", "save", "--quiet", "--force", "--name", point.name, *SUMMARIES, folder=folder)
    call("git", "worktree", "remove", *FORCE, str(folder))


def last_line(point: Point) -> str:
    """The last line that the point's stages wrote."""
    lines = (LOGS / f"{point.name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
