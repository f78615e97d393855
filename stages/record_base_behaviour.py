"""What the base model does off any task: its answers to general instructions, general texts.

The rows are compared with it (`probe_behaviour`).

python -m stages.record_base_behaviour
"""

from gcd.agents import load_base_agent
from gcd.core.base_model import BASE
from gcd.core.params import read_params
from gcd.core.records import read_records
from gcd.core.stage import run, work_folder
from gcd.probing.forgetting import INSTRUCTIONS, TEXTS, record_base, write_base
from gcd.probing.records import GeneralText, Request


def main() -> None:
    params = read_params("model", "run_episodes", "record_base_behaviour")
    inputs = [BASE / "model.json", INSTRUCTIONS, TEXTS]
    with work_folder("record_base_behaviour", params, inputs) as work:
        agent = load_base_agent(params, [], work)
        instructions = read_records(INSTRUCTIONS, Request)
        texts = read_records(TEXTS, GeneralText)
        tokens = params.record_base_behaviour.answer_tokens
        write_base(record_base(agent, instructions, texts, tokens))


if __name__ == "__main__":
    run(main)
