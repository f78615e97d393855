"""Probe one method's rows off their task: what they forgot of the base model, what they leak.

A row that fails by itself leaves failed.json with the reason, and the others go on.

python -m stages.probe_behaviour os_interaction gcd
"""

from pathlib import Path

from gcd.core.base_model import BASE
from gcd.core.errors import RowFailure
from gcd.core.failures import memory_is_the_row_s_own, read_row_failure, write_failure
from gcd.core.interfaces import load_method
from gcd.core.params import Params, read_params
from gcd.core.records import FULL_PROMPT, read_records, write_records
from gcd.core.stage import run, work_folder
from gcd.core.timings import loading
from gcd.data import prompt_file, read_prompt
from gcd.probing.forgetting import FOLDER, TEXTS, compare_answers, compare_texts, read_base
from gcd.probing.leak import REQUESTS, extract
from gcd.probing.records import GeneralText, Request


def probe_row(row: str, task: str, method: str, params: Params, work: Path) -> None:
    """Probe `row` and write down what it did."""
    out = Path("reports/probes", task, method, row)
    # Replies are kept by what was asked, not by who was: every row needs a folder of its own.
    work = work / row
    work.mkdir(exist_ok=True)
    with loading():
        agent = load_method(method).load_agent(
            row, task, params, Path("models", task, method), work
        )
    base = read_base()
    texts, requests = read_records(TEXTS, GeneralText), read_records(REQUESTS, Request)
    prompt = read_prompt(task)[1]
    write_records(out / "texts.jsonl", compare_texts(agent, texts, base))
    write_records(out / "answers.jsonl", compare_answers(agent, base))
    write_records(
        out / "extractions.jsonl", extract(agent, requests, prompt, params.probe_behaviour)
    )


def main(task: str, method: str) -> None:
    params = read_params("model", "run_episodes", "probe_behaviour", f"methods.{method}")
    fitted = Path("models", task, method)
    inputs = [BASE / "model.json", prompt_file(task), fitted, FOLDER, TEXTS, REQUESTS]
    with work_folder(f"probe_behaviour-{task}-{method}", params, inputs) as work:
        for row in load_method(method).rows(params.method):
            try:
                reason = read_row_failure(fitted, row)
                if reason is not None:
                    raise RowFailure(reason)
                with memory_is_the_row_s_own():
                    probe_row(row, task, method, params, work)
            except RowFailure as error:
                if row == FULL_PROMPT:
                    raise
                write_failure(Path("reports/probes", task, method, row), f"{task}, {row}", error)


if __name__ == "__main__":
    run(main)
