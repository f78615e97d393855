"""Self role-playing: the model plays the agent and, roles swapped, its environment.

python -m stages.make_pseudo_conversations os_interaction
"""

from gcd.core.base_model import BASE
from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.records import PairedOutput, read_records
from gcd.core.stage import run, work_folder
from gcd.data import prompt_file, pseudo_folder, read_prompt
from gcd.synthesis.generation import load_generator
from gcd.synthesis.role_play import make_pseudo_conversations


def main(task: str) -> None:
    params = read_params(
        "seed",
        "model",
        "generation",
        "teacher",
        "make_pseudo_conversations",
        f"tasks.{task}.synthesis",
    )
    settings = params.make_pseudo_conversations
    out = pseudo_folder(task)
    pairs = out / "paired_outputs.jsonl"
    cell = f"make_pseudo_conversations-{task}"
    with work_folder(cell, params, [BASE / "model.json", prompt_file(task), pairs]) as work:
        model = load_generator(params, settings.model, work)
        made = make_pseudo_conversations(
            model,
            read_prompt(task)[1],
            read_records(pairs, PairedOutput),
            load_task(task),
            settings,
            params.synthesis,
            params.teacher.max_new_tokens,
            params.seed,
            work,
        )
        made.require(settings.minimum, "make_pseudo_conversations.minimum")
        made.write(out / "conversations.jsonl", out / "conversations_counts.json")


if __name__ == "__main__":
    run(main)
