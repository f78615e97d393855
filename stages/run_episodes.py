"""Let one method's agents act in a task; record every turn, and their action in teacher states.

python -m stages.run_episodes os_interaction gcd
"""

from pathlib import Path

from gcd.acting.agentbench import live_episodes, served
from gcd.acting.rollout import play
from gcd.core.interfaces import load_method, load_task
from gcd.core.language_model import BASE
from gcd.core.params import read_params
from gcd.core.records import AgentRecord, TeacherState, read_records, write_records
from gcd.core.stage import run, work_folder
from gcd.core.timings import loading
from gcd.data import task_folder


def main(task: str, method: str) -> None:
    params = read_params("model", "run_episodes", f"tasks.{task}", f"methods.{method}")
    fitted = Path("models", task, method)
    states = Path("data/teacher_states", f"{task}.jsonl")
    out = Path("reports/episodes", task, method)
    module = load_task(task)
    live = params.run_episodes.live_environments
    if params.task.backend == "agentbench":
        module = served(module)
        live = live_episodes(params.task.server, live)
    inputs = [BASE / "model.json", task_folder(task), fitted, states]
    with work_folder(f"run_episodes-{task}-{method}", params, inputs) as work:
        for row in load_method(method).rows(params.method):
            with loading():
                agent = load_method(method).load_agent(row, task, params, fitted, work)
            samples = module.read_samples(task_folder(task) / "test.jsonl")
            played, answers = play(
                agent,
                module,
                params.task,
                samples,
                read_records(states, TeacherState),
                task_name=task,
                row=row,
                live=live,
                work=work,
            )
            write_records(out / row / "state_replies.jsonl", answers)
            write_records(
                out / row / "agent.json",
                [
                    AgentRecord(
                        row=row,
                        deployment=agent.deployment,
                        prompt_tokens=agent.prompt_tokens,
                        adapter_parameters=agent.adapter_parameters,
                    )
                ],
            )
            write_records(out / row / "episodes.jsonl", [one.episode for one in played])


if __name__ == "__main__":
    run(main)
