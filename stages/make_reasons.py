"""Ask why the prompt changed the output of each pair.

python -m stages.make_reasons os_interaction
"""

from gcd.core.base_model import BASE
from gcd.core.params import read_params
from gcd.core.records import PairedOutput, read_records
from gcd.core.stage import run, work_folder
from gcd.data import prompt_file, pseudo_folder, read_prompt
from gcd.synthesis.generation import load_generator
from gcd.synthesis.steps import make_reasons


def main(task: str) -> None:
    params = read_params("seed", "model", "generation", "make_reasons", f"tasks.{task}.synthesis")
    settings = params.make_reasons
    out = pseudo_folder(task)
    pairs = out / "paired_outputs.jsonl"
    cell = f"make_reasons-{task}"
    with work_folder(cell, params, [BASE / "model.json", prompt_file(task), pairs]) as work:
        model = load_generator(params, settings.model, work)
        prompt = read_prompt(task)[0]
        asked = read_records(pairs, PairedOutput)[: params.synthesis.reasons]
        made = make_reasons(model, prompt, asked, settings, params.seed)
        made.require(settings.minimum, "make_reasons.minimum")
        made.write(out / "reasons.jsonl", out / "reasons_counts.json")


if __name__ == "__main__":
    run(main)
