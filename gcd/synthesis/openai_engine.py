"""Replies from a server that speaks OpenAI's chat-completions protocol (docs/generation.md).

vLLM, llama.cpp or a hosted model, through the official client. Requests run in parallel, each reply
is kept as it arrives, and the key comes from the environment variable OPENAI_API_KEY alone.
"""

import os
import random
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import openai
from tqdm import tqdm

from gcd.core.decoding import Sampling
from gcd.core.errors import UserError
from gcd.core.interfaces import Reply
from gcd.core.journal import Journal
from gcd.core.records import Conversation
from gcd.core.sessions import Sessions
from gcd.core.settings import GenerationServerSettings

KEY = "OPENAI_API_KEY"
NO_KEY = "no-key"  # what is sent without one: a server without keys takes any
ASK_OPENING = (
    "{question}\n\nBegin your reply with exactly this text, and go on from there:\n\n{opening}"
)
# vLLM's, which llama.cpp takes too: the last message stays open, and the reply repeats it.
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False, "echo": True}
_NO_ROOM = re.compile(r"maximum (context|model) length")
_UNREADABLE = (AttributeError, TypeError, IndexError)


class Pace:
    """Lets requests begin at even distances, whatever thread they come from."""

    def __init__(self, per_minute: float | None) -> None:
        """`per_minute` requests; None for no limit."""
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may begin."""
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._seconds
        time.sleep(begin - now)


class ServedModel:
    """Generates replies on a server; a `TextGenerator`."""

    def __init__(
        self,
        settings: GenerationServerSettings,
        openings: Literal["continue", "ask"],
        model: str,
        journal: Journal,
    ) -> None:
        """`model` is the server's name for it; `journal` keeps the replies, by request."""
        self._settings = settings
        self._continues = openings == "continue"
        self._model = model
        self._journal = journal
        pace = Pace(settings.requests_per_minute)
        self._client = openai.OpenAI(
            base_url=settings.address,
            api_key=os.environ.get(KEY) or NO_KEY,
            max_retries=settings.retries,
            timeout=settings.timeout_seconds,
            # Here, not around a call, so that the client's own retries keep the pace too.
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [lambda request: pace.wait()]}
            ),
        )

    def check(self) -> None:
        """Raises UserError unless the server answers, takes the key and has the model.

        Without it, a wrong address would show after all retries only, and a server of a single
        model, such as llama.cpp's, would answer for a model of any name.
        """
        try:
            known = [model.id for model in self._client.with_options(max_retries=0).models.list()]
        except openai.OpenAIError as error:
            raise self._explain(error) from error
        except _UNREADABLE as error:
            raise self._unreadable() from error
        if self._model not in known:
            raise UserError(
                f"{self._settings.address}: no model {self._model!r} there; it serves "
                f"{', '.join(known[:10]) or 'none'}. Correct the stage's `model` in params.yaml."
            )

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
        """As `TextGenerator` says. Conversation i is sampled with a seed made from `seed/i`.

        `sessions` are not used: a server keeps its own.

        Raises:
            UserError: the server refuses, fails after all retries, or does not continue openings.
                Replies that have arrived are in the journal.
        """
        openings = openings or [""] * len(conversations)
        requests = [
            self._request([*prompt, *messages], opening, max_new_tokens, sampling, number)
            for number, (messages, opening) in enumerate(zip(conversations, openings, strict=True))
        ]
        interval = 1.0 if sys.stderr.isatty() else 15.0
        with (
            tqdm(total=len(requests), desc=progress, unit="reply", mininterval=interval) as bar,
            ThreadPoolExecutor(self._settings.parallel_requests) as pool,
        ):
            replies = [
                pool.submit(self._reply, request, opening)
                for request, opening in zip(requests, openings, strict=True)
            ]
            try:
                for reply in as_completed(replies):
                    reply.result()
                    bar.update()
            except BaseException:
                # What has not begun is dropped; what is under way is waited for, and kept.
                pool.shutdown(cancel_futures=True)
                raise
            return [reply.result() for reply in replies]

    def _request(
        self,
        messages: Conversation,
        opening: str,
        max_new_tokens: int,
        sampling: Sampling | None,
        number: int,
    ) -> dict[str, Any]:
        """The arguments of a chat completion: all that its reply depends on."""
        sent = [{"role": message.role, "content": message.content} for message in messages]
        request = {"model": self._model, "messages": sent, "max_tokens": max_new_tokens}
        if sampling:
            seed = random.Random(f"{sampling.seed}/{number}").getrandbits(31)
            request |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
        else:
            request["temperature"] = 0.0
        if opening and self._continues:
            sent.append({"role": "assistant", "content": opening})
            request["extra_body"] = CONTINUE
        elif opening:
            question = sent[-1]["content"]
            sent[-1]["content"] = ASK_OPENING.format(question=question, opening=opening)
        return request

    def _reply(self, request: dict[str, Any], opening: str) -> Reply | None:
        """The reply to a request: out of the journal, where [] stands for None, or asked for."""
        key = Journal.key(request)
        kept = self._journal.get(key)
        if kept is None:
            reply = self._ask(request, opening)
            kept = [] if reply is None else [reply]
            self._journal.put(key, kept)
        return kept[0] if kept else None

    def _ask(self, request: dict[str, Any], opening: str) -> Reply | None:
        try:
            answer = self._client.chat.completions.create(**request)
        except openai.BadRequestError as error:
            if _does_not_fit(error):
                return None
            raise self._explain(error) from error
        except openai.OpenAIError as error:
            raise self._explain(error) from error
        try:
            choice, usage = answer.choices[0], answer.usage
            text = (choice.message.content or "").strip()
            read, written = usage.prompt_tokens, usage.completion_tokens
        except _UNREADABLE as error:
            raise self._unreadable() from error
        if not text.startswith(opening.strip()):
            if self._continues:
                raise UserError(
                    f"{self._settings.address}: this server does not continue a last assistant "
                    "message (or does not repeat it). Set generation.openings to ask."
                )
            text = (opening + text).strip()
        return Reply(text, read, written, choice.finish_reason == "stop")

    def _unreadable(self) -> UserError:
        return UserError(
            f"{self._settings.address}: the answer is not one of OpenAI's protocol. Correct "
            "generation_server.address, which usually ends in /v1."
        )

    def _explain(self, error: openai.OpenAIError) -> UserError:
        """What went wrong and what to do, on one line and without the key."""
        settings = self._settings
        address = settings.address
        said = " ".join(str(error).replace(self._client.api_key, "[key]").split())[:300]
        kept = "Replies that have arrived are kept: run again to go on."
        match error:
            # The server's own words may quote the key.
            case openai.AuthenticationError():
                text = (
                    f"{address}: the server refuses the key (401). Set the environment variable "
                    f"{KEY} to one that it takes."
                )
            case openai.NotFoundError():
                text = (
                    f"{address}: {said} Correct generation_server.address, which usually ends in "
                    "/v1, or the stage's `model` in params.yaml."
                )
            case openai.RateLimitError():
                text = (
                    f"{address}: too many requests: {said} Lower "
                    "generation_server.requests_per_minute or parallel_requests, raise retries, or "
                    f"mend the account's limits. {kept}"
                )
            case openai.APITimeoutError():
                text = (
                    f"{address}: no answer within {settings.timeout_seconds:g} s. Raise "
                    "generation_server.timeout_seconds, or lower parallel_requests. " + kept
                )
            case openai.APIConnectionError():
                text = (
                    f"{address}: the server cannot be reached ({error.__cause__ or said}). Start "
                    f"it, or correct generation_server.address. {kept}"
                )
            case _:
                text = f"{address}: {said} {kept}"
        return UserError(text)


def _does_not_fit(error: openai.BadRequestError) -> bool:
    """Whether the context is too short: OpenAI's code, llama.cpp's type, vLLM's words."""
    return (
        error.code == "context_length_exceeded"
        or error.type == "exceed_context_size_error"
        or bool(_NO_ROOM.search(error.message))
    )


def load_served_model(
    settings: GenerationServerSettings, openings: Literal["continue", "ask"], model: str, work: Path
) -> ServedModel:
    """A model of a server that answers; its replies are kept in `work` until the stage ends.

    Raises:
        UserError: the server does not answer, refuses the key, or has no such model.
    """
    served = ServedModel(settings, openings, model, Journal(work / "replies.jsonl"))
    served.check()
    return served
