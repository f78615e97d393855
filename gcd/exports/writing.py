"""Fill an export's folder: under a temporary name, renamed when it is whole."""

import json
import logging
import re
import shutil
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from gcd.core.base_model import BASE, base_location, load_tokenizer, load_with_adapter
from gcd.core.chat import prompt_ids
from gcd.core.errors import UserError
from gcd.core.params import Params, read_params
from gcd.core.records import read_json, write_text
from gcd.data import read_prompt
from gcd.exports.base import BaseModel, describe_base
from gcd.exports.card import render_card
from gcd.exports.converter import convert_adapter, convert_model, fetch_converter
from gcd.exports.facts import Facts, read_facts, sha256
from gcd.exports.serving import ADAPTER_FILE, MERGED_FILE, Served
from gcd.exports.settings import Gguf, read_settings

MANIFEST = "export.json"  # what makes a folder an export


def check_target(to: Path, *, replace: bool) -> None:
    """Raise UserError unless `to` is free, or is an export that may be replaced."""
    if not to.exists() or (replace and (to / MANIFEST).is_file()):
        return
    if replace:
        raise UserError(
            f"{to}: exists and is no export (it has no {MANIFEST}), so it is not replaced. Choose "
            "another name, or remove it yourself."
        )
    raise UserError(
        f"{to}: exists. Choose another name, or add --replace to have a new export in its place "
        "(and everything that is in it gone)."
    )


def greedy_settings(tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """How the row was measured: greedily, up to the tokenizer's end token."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def write_adapter(
    facts: Facts, base: BaseModel, tokenizer: Any, greedy: GenerationConfig, out: Path
) -> None:
    """The adapter as it was trained, naming a base model that others have; its tokenizer."""
    tokenizer.save_pretrained(out)
    greedy.save_pretrained(out)
    shutil.copyfile(facts.adapter / "adapter_model.safetensors", out / "adapter_model.safetensors")
    config = {**facts.lora, "base_model_name_or_path": base.name, "revision": base.revision}
    write_text(out / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_merged(params: Params, adapter: Path, greedy: GenerationConfig, out: Path) -> None:
    """Base model and adapter in one, in transformers' format.

    Raises:
        UserError: the base model's weights are rounded to 4 bits.
    """
    if params.model.quantization != "none":
        raise UserError(
            f"model.quantization is {params.model.quantization}: the row was measured with the "
            "adapter beside 4-bit weights, and merged into others it would answer differently. "
            "Export the adapter alone."
        )
    model, tokenizer, _, _ = load_with_adapter(params.model, adapter)
    model.generation_config = greedy
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_ggufs(
    gguf: Collection[Gguf], params: Params, facts: Facts, name: str, new: Path, work: Path
) -> None:
    """What is wanted of adapter.gguf and merged.gguf, into `new`; `work`/merged is the model."""
    converter = fetch_converter(read_settings().converter)
    if "adapter" in gguf:
        # All that the converter wants of the base model, wherever its weights lie.
        AutoConfig.from_pretrained(**base_location()).save_pretrained(work / "base")
        convert_adapter(converter, facts.adapter, work / "base", new / ADAPTER_FILE)
    if "merged" in gguf:
        convert_model(converter, work / "merged", name, params.model.dtype, new / MERGED_FILE)


def folder_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def write_manifest(facts: Facts, model: dict[str, Any], converted: bool, new: Path) -> None:
    """Where the export comes from, what wrote it, and the SHA-256 of every file in it."""
    files = sorted(path for path in new.rglob("*") if path.is_file())
    converter = read_settings().converter
    wrote = {package: version(package) for package in ("peft", "torch", "transformers")}
    if converted:
        wrote["llama.cpp's converters"] = f"{converter.package}=={converter.version}"
    manifest = {
        "task": facts.task,
        "row": facts.row,
        "base": model,
        "prompt_sha256": facts.prompt_sha256,
        "versions": wrote,
        "files": {str(path.relative_to(new)): sha256(path) for path in files},
    }
    write_text(new / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def fill(
    facts: Facts, at: Path, merged: bool, gguf: list[Gguf], again: str, new: Path, work: Path
) -> None:
    """Write all of an export that will stand at `at` into the folder `new`."""
    params = read_params("model", "run_episodes")
    tokenizer, model = load_tokenizer(), read_json(BASE / "model.json")
    greedy = greedy_settings(tokenizer, params.run_episodes.max_new_tokens)
    base = describe_base(model, read_settings(), at)
    write_adapter(facts, base, tokenizer, greedy, new / "adapter")
    if merged or "merged" in gguf:
        write_merged(params, facts.adapter, greedy, work / "merged")
    if gguf:
        write_ggufs(gguf, params, facts, at.name, new, work)
    if merged:
        (work / "merged").replace(new / "merged")
    served = Served(
        name=at.name,
        base=base,
        merged=merged,
        gguf=gguf,
        model=params.model,
        rank=facts.lora["r"],
        max_new_tokens=params.run_episodes.max_new_tokens,
        opening=facts.opening,
        again=again,
    )
    prompt_tokens = len(prompt_ids(tokenizer, read_prompt(facts.task)[1]))
    sizes = {
        f"{path.name}/" if path.is_dir() else path.name: folder_bytes(path)
        for path in sorted(new.iterdir())
    }
    write_text(new / "README.md", render_card(facts, served, model, prompt_tokens, sizes))
    write_manifest(facts, model, bool(gguf), new)


def write_exports(
    task: str,
    row: str,
    to: Path,
    *,
    at: Path,
    merged: bool,
    gguf: Collection[Gguf],
    again: str,
    replace: bool,
) -> None:
    """Export a trained row into the folder `to`, whole or not at all.

    Args:
        task, row: of models/TASK/ROW/adapter, a LoRA adapter.
        to: the folder that is written.
        at: where it will stand in the end; its name is what servers call the model.
        merged: write the merged model too.
        gguf: which GGUF files to write too.
        again: the command that exports the row, for the card; options that ask for more follow it.
        replace: put the new export in the place of one that exists.

    Raises:
        UserError: `to` is taken, the row has no LoRA adapter or failed, a record is missing or
            bad, 4-bit weights are to be merged, or llama.cpp's converters are not to be had.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", at.name):
        raise UserError(
            f"{at}: the folder's name is what servers call the model. Use letters, digits, dots, "
            "underscores and hyphens."
        )
    check_target(to, replace=replace)
    facts = read_facts(task, row)
    new, work = (to.with_name(f".{to.name}.{suffix}") for suffix in ("new", "work"))
    try:
        for folder in (new, work):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        fill(facts, at, merged, sorted(set(gguf)), again, new, work)
        for file in (path for path in new.rglob("*") if path.is_file()):
            file.chmod(0o644)  # safetensors writes for its user alone, and a server may be another
        check_target(to, replace=replace)
        if to.exists():
            to.replace(work / "old")
        new.replace(to)
    finally:
        for folder in (new, work):
            shutil.rmtree(folder, ignore_errors=True)
    held = ", ".join(sorted(path.name for path in to.iterdir()))
    logging.info("%s holds %s. How to serve it: %s", at, held, at / "README.md")
