"""Generate replies in batches, behind an optional shared prompt.

Replies do not depend on the batch a conversation is in: each has its own random stream, and
padding is masked.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from gcd.core.base_model import load_model
from gcd.core.chat import encode_text, prompt_ids, render_request, stop_ids
from gcd.core.decoding import Sampling, decode, make_chooser, read
from gcd.core.errors import UserError
from gcd.core.interfaces import ReadReply, Reply
from gcd.core.journal import Journal
from gcd.core.records import Conversation
from gcd.core.sessions import Layers, Sessions, common_length
from gcd.core.settings import ModelSettings
from gcd.core.shared_prefix import Prefix, Reading, attach_prefix, compute_prefix


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

    @torch.inference_mode()
    def read_replies(
        self, prompt: Conversation, conversations: list[Conversation], replies: list[str]
    ) -> list[ReadReply]:
        """What the model expects at every token of given replies; nothing is written.

        Args:
            prompt: what all conversations begin with.
            conversations: each ends in a user turn.
            replies: one to each, "" for none: then a single state is left, the reply's beginning.

        Raises:
            UserError: the prompt and the longest conversation do not fit the context.
        """
        requests = [
            render_request(self.tokenizer, prompt, messages, "") for messages in conversations
        ]
        written = [encode_text(self.tokenizer, reply) if reply else [] for reply in replies]
        texts = [suffix + ids for (_, suffix), ids in zip(requests, written, strict=True)]
        if not texts:
            return []
        prefix_ids = requests[0][0]
        self._room(self._length(prefix_ids), max(map(len, texts)))
        start = self._attach(prefix_ids)
        # What all begin with, such as a template's own system message, is read once: a third of
        # all tokens where conversations are short. Every text keeps the states that are asked for.
        shared = min(common_length(texts[0], ids) for ids in texts)
        shared = min([shared, *(len(suffix) - 1 for _, suffix in requests)])
        past = read(self.model, start, [texts[0][:shared]], [None])[1][0] if shared else None
        states = [
            part
            for pack in self._packs([ids[shared:] for ids in texts])
            for part in self._read(start + shared, pack, past)
        ]
        return [
            ReadReply(ids, part[-len(ids) - 1 :].cpu())
            for ids, part in zip(written, states, strict=True)
        ]

    @torch.inference_mode()
    def log_probabilities(self, states: Tensor) -> Tensor:
        """Log-probabilities [n, V] of the next token, in fp32, from last hidden states [n, d]."""
        head = self.model.lm_head
        logits = head(states.to(self.model.device, head.weight.dtype))
        return torch.log_softmax(logits.float(), dim=-1)

    def _packs(self, texts: list[list[int]]) -> Iterator[list[list[int]]]:
        """The texts in their order, as many at a time as memory takes; one at least."""
        pack: list[list[int]] = []
        for ids in texts:
            if pack and sum(map(len, pack)) + len(ids) > self._batch_tokens:
                yield pack
                pack = []
            pack.append(ids)
        yield pack

    def _read(self, start: int, texts: list[list[int]], past: Layers | None) -> tuple[Tensor, ...]:
        """Last hidden states of each text, [n, d], read as one row from position `start` on.

        `past` are keys and values of what stands before each, after the prompt.
        """
        lengths = [len(ids) for ids in texts]
        ids = torch.tensor([[token for text in texts for token in text]])
        places = torch.tensor([[place for n in lengths for place in range(start, start + n)]])
        hidden: Tensor = self.model.model(
            input_ids=ids.to(self.model.device),
            position_ids=places.to(self.model.device),
            use_cache=False,
            reading=Reading(lengths, [past] * len(texts)),
        ).last_hidden_state[0]
        return torch.split(hidden, lengths)

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
