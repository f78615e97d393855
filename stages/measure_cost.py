"""Price the recorded episodes in tokens, FLOPs, cache bytes; needs a tokenizer, measures no time.

What training took was counted by `fit`, what the pseudo data took is computed from their lengths.
Rows that failed are left out; the report names them.

python -m stages.measure_cost
"""

import json
from pathlib import Path

from gcd.core.base_model import load_tokenizer
from gcd.core.params import load_file, read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.cost import cost_tasks, read_model
from gcd.data_cost import data_flops
from gcd.plan_work import SYNTHESIS
from gcd.rows import played, read_rows

EPISODES = Path("reports/episodes")
MODELS = Path("models")
COSTS = Path("reports/costs.json")


def main() -> None:
    tasks = {
        task: played(rows) for task, rows in read_rows(EPISODES, load_file()["methods"]).items()
    }
    model = read_model(MODELS / "base/model.json")
    tokenizer = load_tokenizer()
    data = {}
    for task in tasks:
        params = read_params("model", *SYNTHESIS, f"tasks.{task}.synthesis")
        data[task] = sum(data_flops(task, tokenizer, model, params).values())
    costs = cost_tasks(model.architecture, tasks, MODELS, data, params.model.dtype)
    write_text(COSTS, json.dumps(costs, indent=2, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
