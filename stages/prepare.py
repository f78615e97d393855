"""Fix a task's prompt and its samples: demonstrations, development, test.

With `backend: agentbench`, the prompt and the test samples are the server's.

python -m stages.prepare os_interaction
"""

from pathlib import Path

from gcd.acting.agentbench import fetch
from gcd.core.errors import UserError
from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.prompt import format_prompt, parse_prompt, read_prompt_text
from gcd.core.records import PseudoInput, write_records, write_text
from gcd.core.stage import run
from gcd.data import problems_file, prompt_file, task_folder


def main(task: str) -> None:
    settings = read_params(f"tasks.{task}").task
    out = task_folder(task)
    served = settings.backend == "agentbench"
    if served:
        if settings.data != "generated":
            raise UserError(
                f"tasks.{task}: with backend: agentbench the server has the test samples; set "
                f"data: generated (for the rest), got data: {settings.data}."
            )
        samples, messages = fetch(settings)
        text = format_prompt(messages, settings.server.address)
    else:
        source = Path("data/prompts", f"{settings.prompt}.md")
        text = read_prompt_text(source)
        parse_prompt(text, str(source))
    write_text(prompt_file(task), text + "\n")
    module = load_task(task)
    skipped = module.write_samples(settings, out)
    write_records(out / "skipped.jsonl", skipped)
    shown = module.read_samples(out / "demonstrations.jsonl")
    problems = [PseudoInput(index=n, text=sample.problem) for n, sample in enumerate(shown)]
    write_records(problems_file(task), problems)
    if served:
        write_records(out / "test.jsonl", samples)


if __name__ == "__main__":
    run(main)
