"""Price the recorded episodes in tokens, FLOPs and cache bytes. Needs no model, measures no time.

python -m stages.measure_cost
"""

import json
from pathlib import Path

from gcd.core.params import read_params
from gcd.core.records import write_text
from gcd.core.stage import run
from gcd.cost import cost_tasks, read_model
from gcd.rows import read_rows

EPISODES = Path("reports/episodes")
MODEL = Path("models/base/model.json")
COSTS = Path("reports/costs.json")


def main() -> None:
    params = read_params("model")
    costs = cost_tasks(read_model(MODEL).architecture, read_rows(EPISODES), params.model.dtype)
    write_text(COSTS, json.dumps(costs, indent=2, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
