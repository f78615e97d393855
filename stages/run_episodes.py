"""Let one method's agents act in a task: every turn, their action in teacher states, their prompt.

A row that fails by itself leaves failed.json with the reason, and the others go on.

python -m stages.run_episodes os_interaction gcd
"""

import json
from pathlib import Path

from gcd.acting.agentbench import live_episodes, served
from gcd.acting.recall import prompt_opening, recall_prompt
from gcd.acting.rollout import play
from gcd.core.base_model import BASE, load_tokenizer
from gcd.core.errors import RowFailure
from gcd.core.failures import memory_is_the_row_s_own, read_row_failure, write_failure
from gcd.core.interfaces import Task, load_method, load_task
from gcd.core.params import Params, read_params
from gcd.core.records import (
    FULL_PROMPT,
    AgentRecord,
    TeacherState,
    read_records,
    write_records,
    write_text,
)
from gcd.core.stage import run, work_folder
from gcd.core.timings import loading
from gcd.data import explained_pairs, pseudo_files, read_prompt, task_folder


def play_row(row: str, task: str, method: str, module: Task, params: Params, work: Path) -> None:
    """Play all samples as `row`, ask it for the prompt, and write everything down."""
    out = Path("reports/episodes", task, method, row)
    # Replies are kept by what was asked, not by who was: every row needs a folder of its own.
    work = work / row
    work.mkdir(exist_ok=True)
    live = params.run_episodes.live_environments
    if params.task.backend == "agentbench":
        module = served(module)
        live = live_episodes(params.task.server, live)
    with loading():
        agent = load_method(method).load_agent(
            row, task, params, Path("models", task, method), work
        )
    played, answers = play(
        agent,
        module,
        params.task,
        module.read_samples(task_folder(task) / "test.jsonl"),
        read_records(Path("data/teacher_states", f"{task}.jsonl"), TeacherState),
        task_name=task,
        row=row,
        live=live,
        work=work,
    )
    tokens = params.run_episodes.recall_tokens
    opening = prompt_opening(load_tokenizer(), read_prompt(task)[0], tokens)
    pairs = explained_pairs(task, params.run_episodes.recall_requests)
    record = AgentRecord(
        row=row,
        deployment=agent.deployment,
        prompt_tokens=agent.prompt_tokens,
        adapter_parameters=agent.adapter_parameters,
        bytes_to_ship=agent.bytes_to_ship,
    )
    write_records(out / "state_replies.jsonl", answers)
    write_records(out / "prompt_recall.jsonl", recall_prompt(agent, opening, pairs, tokens))
    write_records(out / "agent.json", [record])
    write_records(out / "episodes.jsonl", [one.episode for one in played])


def main(task: str, method: str) -> None:
    params = read_params("model", "run_episodes", f"tasks.{task}", f"methods.{method}")
    fitted = Path("models", task, method)
    out = Path("reports/episodes", task, method)
    states = Path("data/teacher_states", f"{task}.jsonl")
    pairs, reasons, _ = pseudo_files(task)
    inputs = [BASE / "model.json", task_folder(task), fitted, states, pairs, reasons]
    with work_folder(f"run_episodes-{task}-{method}", params, inputs) as work:
        rows = load_method(method).rows(params.method)
        for row in rows:
            try:
                reason = read_row_failure(fitted, row)
                if reason is not None:
                    raise RowFailure(reason)
                with memory_is_the_row_s_own():
                    play_row(row, task, method, load_task(task), params, work)
            except RowFailure as error:
                if row == FULL_PROMPT:
                    raise
                write_failure(out / row, f"{task}, {row}", error)
        write_text(out / "rows.json", json.dumps(rows) + "\n")


if __name__ == "__main__":
    run(main)
