"""Build one method for one task: train its adapter, or write down its prompt.

python -m stages.fit os_interaction gcd
"""

from pathlib import Path

from gcd.core.interfaces import load_method
from gcd.core.params import read_params
from gcd.core.stage import run, work_folder
from gcd.data import prompt_file, pseudo_files


def main(task: str, method: str) -> None:
    params = read_params("seed", "model", "train", f"tasks.{task}.training", f"methods.{method}")
    inputs = [Path("models/base/model.json"), prompt_file(task), *pseudo_files(task)]
    with work_folder(f"fit-{task}-{method}", params, inputs) as work:
        load_method(method).fit(task, params, Path("models", task, method), work)


if __name__ == "__main__":
    run(main)
