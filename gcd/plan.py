"""What a profile needs, before it is run: memory, tokens, FLOPs and hours.

python -m gcd.plan gpu
python -m gcd.plan paper --flops-per-second 3e14 --longest

Computed from params.yaml with the profile's changes, the sizes of its model
(profiles/facts/architectures.yaml) and the lengths of texts that the recorded default run had, or
with --longest the bounds that the params set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from gcd.core.errors import UserError
from gcd.core.interfaces import load_method
from gcd.core.params import FILE, Params, check_sections
from gcd.core.settings import PrepareModelSettings
from gcd.cost import Architecture, ModelRecord, key_value_bytes, read_model
from gcd.plan_memory import (
    LORA_BYTES,
    OPTIMIZER_BYTES,
    activation_bytes,
    head_bytes,
    lora_parameters,
    weight_bytes,
)
from gcd.plan_rows import Cell, episodes, fits, left_out
from gcd.plan_work import (
    SYNTHESIS,
    Lengths,
    Work,
    conversation_tokens,
    generation_tokens,
    longest,
    synthesis,
)
from gcd.profiles import FOLDER, apply_profile

FACTS = FOLDER / "facts"
PREPARED = Path("models/base/model.json")


def _facts(name: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load((FACTS / name).read_text(encoding="utf-8")))


def find_model(settings: PrepareModelSettings) -> ModelRecord:
    """Sizes of the base model: known ones from the facts, others if they are prepared.

    Raises:
        UserError: the model is neither known nor prepared.
    """
    source = settings.source
    if source == "tiny":
        tiny = settings.tiny
        sizes = tiny.model_dump(include=set(Architecture.model_fields))
        model = Architecture(head_size=tiny.hidden_size // tiny.heads, **sizes)
        # Embedding and head are one; a norm before attention, one after it, one at the end.
        norms = (2 * model.layers + 1) * model.hidden_size
        parameters = model.linear_weights + model.head_weights + norms
        return ModelRecord(source=source, architecture=model, parameters=parameters)
    names = {"wheel": settings.wheel.package, "hub": settings.hub.id, "path": settings.path.folder}
    known = _facts("architectures.yaml")
    if names[source] in known:
        return ModelRecord(source=source, **known[names[source]])
    if PREPARED.exists() and names[source] in PREPARED.read_text(encoding="utf-8"):
        return read_model(PREPARED)
    raise UserError(
        f"The sizes of {names[source]} are not known: add them to {FACTS}/architectures.yaml "
        f"(there are {', '.join(known)}), or prepare the model: dvc repro prepare_model"
    )


def find_models(base: ModelRecord, params: Params) -> dict[str, ModelRecord]:
    """The model of every synthesis stage, by the stage's name.

    Raises:
        UserError: one that is not the base model is not known.
    """
    names = {stage: getattr(params, stage).model for stage in SYNTHESIS}
    known = _facts("architectures.yaml")
    found = {}
    for stage, name in names.items():
        repository = name.split("@")[0]
        if name != "base" and repository not in known:
            raise UserError(
                f"The sizes of {name} ({stage}.model) are not known: add them to "
                f"{FACTS}/architectures.yaml under {repository}."
            )
        found[stage] = base if name == "base" else ModelRecord(source="hub", **known[repository])
    return found


def find_lengths(task: str) -> Lengths:
    """The recorded lengths of a task's texts; raises UserError if there are none."""
    known = _facts("lengths.yaml")
    try:
        return Lengths.model_validate(known[task])
    except (KeyError, ValidationError) as error:
        raise UserError(
            f"{FACTS}/lengths.yaml: expected lengths of {task!r} as of {', '.join(known)}."
        ) from error


def memory_table(
    model: ModelRecord,
    others: list[ModelRecord],
    params: Params,
    examples: list[tuple[float, float]],
) -> str:
    """What training holds at once, with and without checkpointing, and generation's cache.

    Args:
        others: models that only write pseudo data.
        examples: tokens and labels of the longest kinds of training examples.
    """
    sizes, train, dtype = model.architecture, params.train, params.model.dtype
    lora = lora_parameters(sizes, train.lora.rank)
    # An example longer than a micro-batch stands alone.
    tokens = round(max(train.micro_batch_tokens, *(one for one, _ in examples)))
    labels = round(max(label for _, label in examples))
    fixed = {
        "base weights": weight_bytes(model, params.model, training=True),
        "LoRA weights": lora * LORA_BYTES,
        "LoRA gradients": lora * LORA_BYTES,
        f"optimizer ({train.optimizer})": lora * OPTIMIZER_BYTES[train.optimizer],
        f"head, {labels:,} labels": head_bytes(sizes, labels, dtype),
    }
    kept = {
        flag: activation_bytes(sizes, tokens, dtype, train.lora, checkpointing=flag)
        for flag in (False, True)
    }
    chosen = train.gradient_checkpointing
    held = params.model.batch_tokens
    lines = [
        f"parameters {model.parameters:,}; LoRA, rank {train.lora.rank}: {lora:,}",
        "",
        "Memory of training, GB",
        *(f"  {name:<42}{value / 1e9:>9.3f}" for name, value in fixed.items()),
        *(
            f"  {f'activations, {tokens:,} tokens' + (', checkpointing' if flag else ''):<42}"
            f"{value / 1e9:>9.3f}{'' if flag == chosen else '  (not chosen)'}"
            for flag, value in kept.items()
        ),
        f"  {'sum':<42}{(sum(fixed.values()) + kept[chosen]) / 1e9:>9.3f}",
        "",
        "Memory of generation, GB",
        f"  {'base weights':<42}{weight_bytes(model, params.model, training=False) / 1e9:>9.3f}",
        f"  {f'keys and values, {held:,} tokens':<42}"
        f"{key_value_bytes(sizes, held, dtype) / 1e9:>9.3f}",
        *(
            f"  {f'synthesis: {other.parameters:,} parameters':<42}"
            f"{weight_bytes(other, params.model, training=False) / 1e9:>9.3f}\n"
            f"  {f'keys and values, {held:,} tokens':<42}"
            f"{key_value_bytes(other.architecture, held, dtype) / 1e9:>9.3f}"
            for other in others
        ),
    ]
    return "\n".join(lines) + "\n"


def work_table(works: list[tuple[str, Work]], rate: float) -> str:
    """One line a stage, and their sum; `rate` in FLOPs a second."""
    lines = [f"{'stage':<48}{'task':<16}{'read':>13}{'written':>13}{'TFLOPs':>15}{'hours':>11}"]
    for task, work in works:
        lines.append(
            f"{work.stage:<48}{task:<16}{work.read:>13,.0f}{work.written:>13,.0f}"
            f"{work.flops / 1e12:>15,.1f}{work.flops / rate / 3600:>11,.2f}"
        )
    total = sum(work.flops for _, work in works)
    lines.append(f"{'sum':<90}{total / 1e12:>15,.1f}{total / rate / 3600:>11,.2f}")
    return "\n".join(lines) + "\n"


def plan(name: str, rate: float, *, as_long_as_possible: bool) -> str:
    """The text that the command prints.

    Raises:
        UserError: the profile is not valid, or its model's sizes or its tasks' lengths are unknown.
    """
    file = YAML(typ="safe").load(apply_profile(FILE.read_text(encoding="utf-8"), name))
    top = [key for key in file if key not in ("tasks", "methods")]
    methods = {one: check_sections(file, f"methods.{one}").method for one in file["methods"]}
    rows = {one: load_method(one).rows(settings) for one, settings in methods.items()}
    works: list[tuple[str, Work]] = []
    examples = []
    for task in file["tasks"]:
        params = check_sections(file, *top, f"tasks.{task}")
        model = find_model(params.prepare_model)
        sizes = find_lengths(task)
        if as_long_as_possible:
            sizes = longest(sizes, params)
        adapter = lora_parameters(model.architecture, params.train.lora.rank)
        models = find_models(model, params)
        cell = Cell(model.architecture, params, sizes, adapter)
        shown = params.make_pseudo_inputs.demonstrations
        made = synthesis(models, params.task.synthesis, shown, sizes)
        works += [(task, work) for work in made]
        for one, settings in methods.items():
            works += [(task, work) for work in fits(cell, one, settings)]
            works += [(task, work) for work in episodes(cell, one, settings, rows[one])]
        tokens, labels = conversation_tokens(sizes, params.train.max_length)
        examples += [(tokens, labels)]
        if "prompt_prepending" in methods:
            examples += [(sizes.prompt + tokens, labels)]
        if "gcd" in methods:
            joint = methods["gcd"]
            examples += [generation_tokens(sizes, joint.pg_target, joint.pg_max_length)]
    others = list(dict.fromkeys(one for one in models.values() if one != model))
    lengths = "bounds of the params" if as_long_as_possible else "means of the recorded default run"
    missing = left_out(list(methods))
    note = f"Not in the sum: {', '.join(missing)}\n" if missing else ""
    return (
        f"Profile {name}; lengths: {lengths}; {rate:.3g} FLOPs a second\n"
        f"{memory_table(model, others, params, examples)}\n{work_table(works, rate)}{note}"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m gcd.plan", description=__doc__)
    parser.add_argument("profile", help="profiles/<profile>.yaml; `default` for params.yaml itself")
    parser.add_argument(
        "--flops-per-second", type=float, required=True, help="what the device sustains"
    )
    parser.add_argument("--longest", action="store_true", help="texts as long as the params allow")
    given = parser.parse_args()
    try:
        text = plan(given.profile, given.flops_per_second, as_long_as_possible=given.longest)
    except UserError as error:
        sys.exit(f"plan: {error}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
