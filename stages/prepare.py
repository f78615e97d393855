"""Fix a task's prompt and its samples: demonstrations, development, test.

python -m stages.prepare os_interaction
"""

from pathlib import Path

from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.prompt import parse_prompt, read_prompt_text
from gcd.core.records import write_records, write_text
from gcd.core.stage import run
from gcd.data import task_folder


def main(task: str) -> None:
    params = read_params(f"tasks.{task}")
    source = Path("data/prompts", f"{params.task.prompt}.md")
    text = read_prompt_text(source)
    parse_prompt(text, str(source))
    out = task_folder(task)
    write_text(out / "prompt.md", text + "\n")
    skipped = load_task(task).write_samples(params.task, out)
    write_records(out / "skipped.jsonl", skipped)


if __name__ == "__main__":
    run(main)
