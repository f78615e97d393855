"""Load the base model (plain or 4-bit, with or without an adapter) and generate in batches.

Replies do not depend on the batch a conversation is in: each has its own random stream, and
padding is masked.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from gcd.core.chat import prompt_ids, render_request, stop_ids
from gcd.core.decoding import Sampling, decode, make_chooser
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply
from gcd.core.journal import Journal
from gcd.core.launch import local_rank, sharded
from gcd.core.records import Conversation
from gcd.core.sessions import Layers, Sessions
from gcd.core.settings import ModelSettings
from gcd.core.shared_prefix import Prefix, attach_prefix, compute_prefix
from gcd.core.timings import loading

BASE = Path("models/base")


def device() -> torch.device:
    """This process's GPU if there is one."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def base_location() -> dict[str, Any]:
    """Where `prepare_model` left the base model: arguments of `from_pretrained`.

    Raises:
        UserError: there is no prepared model.
    """
    try:
        description = json.loads((BASE / "model.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(f"{BASE}: no prepared model. Run `dvc repro prepare_model`.") from error
    if description["source"] == "hub":
        return {
            "pretrained_model_name_or_path": description["id"],
            "revision": description["revision"],
            "local_files_only": True,
        }
    return {"pretrained_model_name_or_path": str(BASE)}


def location(name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for `base`, a local folder, or the hub's owner/name@revision.

    Raises:
        UserError: it is `base`, and there is no prepared model.
    """
    if name == "base":
        return base_location()
    if Path(name).is_dir():
        return {"pretrained_model_name_or_path": name}
    repository, _, revision = name.partition("@")
    return {"pretrained_model_name_or_path": repository, "revision": revision}


def load_tokenizer() -> Any:
    """The base model's tokenizer. Raises UserError if there is no prepared model."""
    return AutoTokenizer.from_pretrained(**base_location())


def load_base(settings: ModelSettings) -> tuple[Any, Any]:
    """The base model, as `load_model` loads it."""
    return load_model(settings, "base")


def load_model(settings: ModelSettings, name: str) -> tuple[Any, Any]:
    """A model in evaluation mode, on the GPU if there is one, and its tokenizer.

    Args:
        settings: quantization and number format.
        name: see `location`.

    Raises:
        UserError: the files are missing, truncated or not a causal language model.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also write to all fresh memory, 4 % of a training step, in case someone reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    dtype = getattr(torch, settings.dtype)
    quantization = None
    if settings.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # The same bytes: FSDP divides only what looks like numbers of the model's own type.
            bnb_4bit_quant_storage=dtype if sharded() else torch.uint8,
        )
    place = location(name)
    with loading():
        try:
            tokenizer = AutoTokenizer.from_pretrained(**place)
            model = AutoModelForCausalLM.from_pretrained(
                **place, dtype=dtype, quantization_config=quantization, device_map=str(device())
            )
        except Exception as error:  # safetensors, json, OS and hub errors share no base class
            remedy = f"Delete {BASE} and run `dvc repro`." if name == "base" else "Check its name."
            raise UserError(
                f"The model {place['pretrained_model_name_or_path']} cannot be loaded: "
                f"{' '.join(str(error).split())[:300]} {remedy}"
            ) from error
    return model.eval(), tokenizer


def attach_adapter(model: Any, adapter: Path) -> Any:
    """The peft model of a base model and the adapter in a folder; UserError if it has none."""
    from peft import PeftModel  # 1.5 s of imports that the stages without an adapter do without

    with loading():
        try:
            return PeftModel.from_pretrained(model, str(adapter)).eval()
        except Exception as error:  # as above
            raise UserError(
                f"The adapter {adapter} cannot be loaded: {' '.join(str(error).split())[:300]} "
                "Delete it and run `dvc repro`."
            ) from error


def load_with_adapter(settings: ModelSettings, adapter: Path) -> tuple[Any, Any, str, int]:
    """The base model with a LoRA adapter: merged, except into 4-bit weights.

    Returns:
        model, tokenizer, deployment ("merged adapter" or "unmerged adapter"), adapter parameters.
    """
    base, tokenizer = load_base(settings)
    model = attach_adapter(base, adapter)
    trained = sum(value.numel() for name, value in model.named_parameters() if "lora_" in name)
    if settings.quantization == "nf4":
        return model, tokenizer, "unmerged adapter", trained
    with loading():
        return model.merge_and_unload().eval(), tokenizer, "merged adapter", trained


class LanguageModel:
    """Generates replies to conversations behind an optional shared prompt."""

    def __init__(
        self, model: Any, tokenizer: Any, settings: ModelSettings, journal: Journal | None
    ) -> None:
        """`model` as `load_base` or `load_with_adapter` return it; `journal` for resuming."""
        self.model = model if isinstance(model, PreTrainedModel) else model.get_base_model()
        self.tokenizer = tokenizer
        self._batch_tokens = settings.batch_tokens
        self._journal = journal
        self._prefixes: dict[tuple[int, ...], Prefix] = {}

    def count_prompt_tokens(self, prompt: Conversation) -> int:
        """Positions that `prompt` takes before every conversation (0 for an empty one)."""
        return self._length(prompt_ids(self.tokenizer, prompt))

    def stand_in(self, prefix: Prefix) -> None:
        """From now on, `prefix` is attended to in place of the prompt with its ids."""
        self._prefixes[tuple(prefix.ids)] = prefix

    def _length(self, prefix_ids: list[int]) -> int:
        prefix = self._prefixes.get(tuple(prefix_ids))
        return len(prefix) if prefix else len(prefix_ids)

    @torch.inference_mode()
    def generate(
        self,
        prompt: Conversation,
        conversations: list[Conversation],
        *,
        max_new_tokens: int,
        progress: str,
        sampling: Sampling | None = None,
        openings: list[str] | None = None,
        sessions: Sessions | None = None,
    ) -> list[Reply | None]:
        """One reply to each conversation, greedy unless `sampling` is given.

        Args:
            prompt: what all conversations begin with; its keys and values are computed once.
            conversations: each ends in a user turn.
            max_new_tokens: a reply is cut there (`Reply.complete` is then False).
            progress: what the progress bar says.
            openings: for each conversation, text the reply is made to begin with; it is part of
                `Reply.text`.
            sessions: what the call for the turn before left. Such replies are not in the journal:
                with other turns' keys at hand they would differ in rounding.

        Returns:
            Replies in the order given; None where the conversation does not fit the context.

        Raises:
            UserError: the prompt alone does not fit the context.
        """
        openings = openings or [""] * len(conversations)
        requests = [
            render_request(self.tokenizer, prompt, messages, opening)
            for messages, opening in zip(conversations, openings, strict=True)
        ]
        prefix_ids = requests[0][0] if requests else []
        suffixes = [suffix for _, suffix in requests]
        room = self._room(self._length(prefix_ids), max_new_tokens)
        if sessions:
            sessions.begin()
        replies: list[Reply | None] = [None] * len(suffixes)
        interval = 1.0 if sys.stderr.isatty() else 15.0
        with tqdm(total=len(suffixes), desc=progress, unit="reply", mininterval=interval) as bar:
            for batch in self._batches(suffixes, room, max_new_tokens):
                texts = [suffixes[index] for index in batch]
                settings = [max_new_tokens, sampling and asdict(sampling)]
                key = Journal.key(prefix_ids, batch, texts, settings)
                journal = None if sessions else self._journal
                done = journal.get(key) if journal else None
                if done is None:
                    choose = make_chooser(sampling, batch)
                    made = self._decode(
                        prefix_ids, texts, max_new_tokens, choose, bar.update, sessions
                    )
                    done = [
                        self._reply(ids, len(suffixes[index]), openings[index])
                        for index, ids in zip(batch, made, strict=True)
                    ]
                    if journal:
                        journal.put(key, done)
                else:
                    bar.update(len(batch))
                for index, reply in zip(batch, done, strict=True):
                    replies[index] = reply
        return replies

    def _decode(
        self,
        prefix_ids: list[int],
        texts: list[list[int]],
        max_new_tokens: int,
        choose: Callable[[Tensor, list[int]], list[int]],
        finished: Callable[[], object],
        sessions: Sessions | None,
    ) -> list[list[int]]:
        """`decode` behind the prompt, reading only what no session holds."""
        length = self._attach(prefix_ids)
        stop = stop_ids(self.tokenizer)
        if sessions is None:
            return decode(self.model, length, texts, max_new_tokens, stop, choose, finished)
        past = [sessions.find(ids) for ids in texts]
        held = [layers[0][0].shape[1] if layers else 0 for layers in past]
        kept: dict[int, Layers] = {}
        made = decode(
            self.model,
            length,
            [ids[count:] for ids, count in zip(texts, held, strict=True)],
            max_new_tokens,
            stop,
            choose,
            finished,
            past,
            kept.__setitem__,
        )
        for row, layers in kept.items():
            sessions.hold(texts[row] + made[row][:-1], len(texts[row]), layers)
        return made

    def _room(self, prompt_tokens: int, max_new_tokens: int) -> int:
        """How many tokens a conversation may have; raises UserError if the prompt leaves none."""
        limit = self.model.config.max_position_embeddings
        if prompt_tokens + max_new_tokens >= limit:
            raise UserError(
                f"The prompt has {prompt_tokens} tokens and a reply up to {max_new_tokens}, the "
                f"model's context holds {limit}. Shorten the prompt, lower max_new_tokens, or "
                "choose a model with a longer context."
            )
        return int(limit - prompt_tokens - max_new_tokens)

    def _batches(
        self, suffixes: list[list[int]], room: int, max_new_tokens: int
    ) -> Iterator[list[int]]:
        """Indices of suffixes that fit the context, of similar length, as many as memory takes."""
        order = sorted(range(len(suffixes)), key=lambda index: (len(suffixes[index]), index))
        batch: list[int] = []
        for index in order:
            if len(suffixes[index]) > room:
                continue
            size = (len(batch) + 1) * (len(suffixes[index]) + max_new_tokens)
            if batch and size > self._batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _reply(self, ids: list[int], context_tokens: int, opening: str) -> Reply:
        complete = bool(ids) and ids[-1] in stop_ids(self.tokenizer)
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Reply((opening + text).strip(), context_tokens, len(ids), complete)

    def _attach(self, prefix_ids: list[int]) -> int:
        """Attend to the prompt with these ids from now on; returns its positions."""
        if not prefix_ids:
            attach_prefix(self.model, None)
            return 0
        key = tuple(prefix_ids)
        if key not in self._prefixes:
            self._prefixes[key] = compute_prefix(self.model, prefix_ids)
        attach_prefix(self.model, self._prefixes[key])
        return len(self._prefixes[key])


def load_language_model(settings: ModelSettings, name: str, work: Path) -> LanguageModel:
    """A model, ready to generate; its replies are kept in `work` until the stage ends."""
    model, tokenizer = load_model(settings, name)
    return LanguageModel(model, tokenizer, settings, Journal(work / "replies.jsonl"))
