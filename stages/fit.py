"""Build one method for one task: train its adapter, or write down its prompt.

A method that fails by itself leaves failed.json with the reason, and the stage ends well.

python -m stages.fit os_interaction gcd
"""

from pathlib import Path

from gcd.core.errors import RowFailure
from gcd.core.failures import memory_is_the_row_s_own, write_failure
from gcd.core.interfaces import load_method
from gcd.core.params import read_params
from gcd.core.stage import run, work_folder
from gcd.data import prompt_file, pseudo_files


def main(task: str, method: str) -> None:
    params = read_params("seed", "model", "train", f"tasks.{task}.training", f"methods.{method}")
    inputs = [Path("models/base/model.json"), prompt_file(task), *pseudo_files(task)]
    out = Path("models", task, method)
    with work_folder(f"fit-{task}-{method}", params, inputs) as work:
        try:
            with memory_is_the_row_s_own():
                load_method(method).fit(task, params, out, work)
        except RowFailure as error:
            write_failure(out, f"{task}, {method}", error)


if __name__ == "__main__":
    run(main)
