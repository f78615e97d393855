"""What the pseudo data of a task cost, from the records that synthesis kept: counted, not timed.

The formulas are those of `python -m gcd.plan` (`gcd.plan_work.synthesis`), with the mean lengths
of this run's own texts. What was rejected is taken to be as long as what was kept.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from gcd.core.chat import encode_text, prompt_ids
from gcd.core.params import Params
from gcd.core.records import PseudoInput, read_json, read_records
from gcd.cost import ModelRecord
from gcd.data import pseudo_folder, read_pseudo_data
from gcd.plan_work import SYNTHESIS, Lengths, synthesis

COUNTS = dict(zip(SYNTHESIS, ("inputs", "paired_outputs", "reasons", "conversations"), strict=True))


def measured_lengths(task: str, tokenizer: Any) -> Lengths:
    """Mean lengths of the task's pseudo data in tokens; 0 for what there is none of."""
    data = read_pseudo_data(task)

    def tokens(texts: list[str]) -> int:
        return round(fmean(len(encode_text(tokenizer, text)) for text in texts)) if texts else 0

    turns = [one.messages for one in data.conversations]
    replies = [one.content for messages in turns for one in messages if one.role == "assistant"]
    observed = [one.content for messages in turns for one in messages[1:] if one.role == "user"]
    inputs = read_records(pseudo_folder(task) / "inputs.jsonl", PseudoInput)
    return Lengths(
        prompt=len(prompt_ids(tokenizer, data.prompt_messages)),
        problem=tokens([one.text for one in inputs]),
        first_message=tokens([messages[0].content for messages in turns]),
        reply=tokens(replies),
        observation=tokens(observed),
        turns=len(replies) / len(turns),
        reason=tokens(list(data.reasons.values())),
        played_observation=0,
        played_turns=0.0,
    )


def attempts(folder: Path, stage: str) -> tuple[int, int]:
    """What a synthesis stage kept, and what it wrote in all."""
    counts = read_json(folder / f"{COUNTS[stage]}_counts.json")
    return counts["kept"], counts["kept"] + sum(counts["rejected"].values())


def data_flops(task: str, tokenizer: Any, model: ModelRecord, params: Params) -> dict[str, int]:
    """FLOPs of the base model by synthesis stage; 0 for a stage that another model writes.

    Args:
        task: whose data are read.
        tokenizer: the base model's.
        model: the base model.
        params: the task's `synthesis`, and the four synthesis stages.
    """
    folder = pseudo_folder(task)
    kept = {stage: attempts(folder, stage)[0] for stage in SYNTHESIS}
    works = synthesis(
        dict.fromkeys(SYNTHESIS, model),
        params.synthesis.model_copy(
            update={"inputs": kept["make_pseudo_inputs"], "reasons": kept["make_reasons"]}
        ),
        params.make_pseudo_inputs.demonstrations,
        measured_lengths(task, tokenizer),
    )
    found = {}
    for work in works:
        own, written = attempts(folder, work.stage)
        ours = getattr(params, work.stage).model == "base" and own > 0
        found[work.stage] = round(work.flops * written / own) if ours else 0
    return found
