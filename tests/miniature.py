"""The real pipeline in miniature: a repository with one task, the tiny model, small numbers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = str(Path(sys.executable).parent)
ENVIRONMENT = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def shrink(params: dict[str, Any]) -> None:
    """Numbers small enough for a minute, and four rows; the smoke profile has all of them."""
    kept = ("full_prompt", "no_prompt", "seqkd", "gcd")
    params["methods"] = {name: params["methods"][name] for name in kept}
    params["prepare_model"]["source"] = "path"
    params["prepare_model"]["path"]["folder"] = "mine"
    [task] = params["tasks"].values()
    for split, count in (("demonstrations", 8), ("development", 4), ("test", 6)):
        task[split]["count"] = count
    task["max_turns"] = 3
    params["teacher"]["max_new_tokens"] = 60
    params["run_episodes"] |= {"max_new_tokens": 60, "recall_tokens": 32}
    task["synthesis"] |= {"inputs": 6, "per_request": 6, "max_turns": 3}
    task["training"] |= {"epochs": 2, "batch_size": 2}
    params["make_pseudo_inputs"] |= {"minimum": 3, "max_requests": 6}
    params["make_pseudo_inputs"] |= {"demonstrations": 2, "temperature": 1.0}
    for stage in ("make_paired_outputs", "make_reasons", "make_pseudo_conversations"):
        params[stage]["minimum"] = 1
    params["make_pseudo_conversations"] |= {"end_token": "[END]", "live_conversations": 2}
    params["train"]["checkpoint_every"] = 1
    params["train"]["lora"]["rank"] = 4
    params["score"] |= {"bootstrap_samples": 100, "permutations": 99}
    params["record_base_behaviour"]["answer_tokens"] = 8
    params["probe_behaviour"]["extraction_tokens"] = 16


def make_repository(folder: Path, taught: Path) -> Path:
    """A copy of the repository's sources with one task, shrunken parameters and the tiny model."""
    for name in ("gcd", "stages", "data/prompts", "data/probes"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("reports/ablations", "reports/seeds", "reports/benchmarks", "experiments"):
        (folder / name).mkdir(parents=True)
    # Definitions as they are, and no records: the folders, as git keeps them.
    kept = [f"reports/{name}/.gitkeep" for name in ("ablations", "seeds")]
    kept += ["experiments/ablations.yaml", "reports/further_rows.json"]
    kept += [f"reports/benchmarks/{name}.json" for name in ("inference", "stages", "host")]
    for name in ("dvc.yaml", "constraints.txt", ".gitignore", ".dvcignore", *kept):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(taught, folder / "mine")
    (folder / "data/prompts/os_interaction.md").write_text(tiny.PROMPT)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["tasks"] = {"os_interaction": params["tasks"]["os_interaction"]}
    shrink(params)
    yaml.dump(params, folder / "params.yaml")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=folder, check=True, env=ENVIRONMENT)
    return folder


def repro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", "repro", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def run_module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
