"""Turn the pinned source of the base model into models/base/.

python -m stages.prepare_model
"""

from pathlib import Path

from gcd.core.params import read_params
from gcd.core.stage import run, work_folder
from gcd.model_source import prepare


def main() -> None:
    params = read_params("prepare_model")
    with work_folder("prepare_model", params, inputs=[]) as work:
        prepare(params.prepare_model, work, out=Path("models/base"))


if __name__ == "__main__":
    run(main)
