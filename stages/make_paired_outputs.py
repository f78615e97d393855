"""Answer every pseudo input twice: with the prompt (teacher) and without it (student).

python -m stages.make_paired_outputs os_interaction
"""

from gcd.core.base_model import BASE
from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.records import PseudoInput, read_records
from gcd.core.stage import run, work_folder
from gcd.data import prompt_file, pseudo_folder, read_prompt
from gcd.synthesis.generation import load_generator
from gcd.synthesis.steps import make_paired_outputs


def main(task: str) -> None:
    params = read_params("seed", "model", "generation", "teacher", "make_paired_outputs")
    out = pseudo_folder(task)
    inputs = out / "inputs.jsonl"
    cell = f"make_paired_outputs-{task}"
    with work_folder(cell, params, [BASE / "model.json", prompt_file(task), inputs]) as work:
        model = load_generator(params, params.make_paired_outputs.model, work)
        made = make_paired_outputs(
            model,
            read_prompt(task)[1],
            read_records(inputs, PseudoInput),
            load_task(task),
            params.teacher.max_new_tokens,
        )
        made.require(params.make_paired_outputs.minimum, "make_paired_outputs.minimum")
        made.write(out / "paired_outputs.jsonl", out / "paired_outputs_counts.json")


if __name__ == "__main__":
    run(main)
