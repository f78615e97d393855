"""Let the prompted teacher act in the development samples; record what it did in which state.

No training sees these samples. Rows are asked for their action in the same states.

python -m stages.record_teacher_states os_interaction
"""

from pathlib import Path

from gcd.acting.rollout import play, visited_states
from gcd.agents import load_base_agent
from gcd.core.base_model import BASE
from gcd.core.interfaces import load_task
from gcd.core.params import read_params
from gcd.core.records import write_records
from gcd.core.stage import run, work_folder
from gcd.data import read_prompt, task_folder


def main(task: str) -> None:
    params = read_params("model", "run_episodes", "record_teacher_states", f"tasks.{task}")
    module = load_task(task)
    cell = f"record_teacher_states-{task}"
    with work_folder(cell, params, [BASE / "model.json", task_folder(task)]) as work:
        agent = load_base_agent(params, read_prompt(task)[1], work)
        played, _ = play(
            agent,
            module,
            params.task,
            module.read_samples(task_folder(task) / "development.jsonl"),
            [],
            task_name=task,
            row="full_prompt",
            live=params.run_episodes.live_environments,
            work=work,
        )
        states = visited_states(played, params.record_teacher_states.max_states)
        write_records(Path("data/teacher_states", f"{task}.jsonl"), states)


if __name__ == "__main__":
    run(main)
