"""Check every key of params.yaml: known, present, of the right type, and in keeping.

python -m stages.check_params
"""

from gcd.core.params import every_section, load_file, read_params
from gcd.core.stage import run
from gcd.synthesis.generation import check_models


def main() -> None:
    params = read_params(*every_section(load_file()))
    models = {
        "make_pseudo_inputs.model": params.make_pseudo_inputs.model,
        "make_paired_outputs.model": params.make_paired_outputs.model,
        "make_reasons.model": params.make_reasons.model,
        "make_pseudo_conversations.model": params.make_pseudo_conversations.model,
    }
    check_models(params.generation.engine, models)


if __name__ == "__main__":
    run(main)
