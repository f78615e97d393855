"""The teacher reads the prompt and invents problems that a user could bring.

python -m stages.make_pseudo_inputs os_interaction
"""

from gcd.core.base_model import BASE
from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.records import PseudoInput, read_records
from gcd.core.stage import run, work_folder
from gcd.data import problems_file, prompt_file, pseudo_folder, read_prompt
from gcd.synthesis.generation import load_generator
from gcd.synthesis.steps import make_pseudo_inputs


def main(task: str) -> None:
    params = read_params(
        "seed", "model", "generation", "make_pseudo_inputs", f"tasks.{task}.synthesis"
    )
    settings = params.make_pseudo_inputs
    module = load_task(task)
    out = pseudo_folder(task)
    cell = f"make_pseudo_inputs-{task}"
    inputs = [BASE / "model.json", prompt_file(task), problems_file(task)]
    with work_folder(cell, params, inputs) as work:
        demonstrations = [
            problem.text for problem in read_records(problems_file(task), PseudoInput)
        ]
        model = load_generator(params, settings.model, work)
        prompt = read_prompt(task)[0]
        made = make_pseudo_inputs(
            model, prompt, demonstrations, module, settings, params.synthesis, params.seed
        )
        made.require(settings.minimum, "make_pseudo_inputs.minimum")
        made.write(out / "inputs.jsonl", out / "inputs_counts.json")


if __name__ == "__main__":
    run(main)
