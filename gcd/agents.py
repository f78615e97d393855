"""Agents: a language model, the prompt it carries (or none), its adapter (or none)."""

from pathlib import Path

from torch import Tensor

from gcd.core.base_model import load_base, load_with_adapter
from gcd.core.interfaces import ReadReply, Reply
from gcd.core.journal import Journal
from gcd.core.language_model import LanguageModel
from gcd.core.params import Params
from gcd.core.prompt import format_prompt
from gcd.core.records import Conversation
from gcd.core.sessions import Sessions
from gcd.core.trained_prefix import load_with_prefix


class ChatAgent:
    """Answers conversations greedily; satisfies `interfaces.Agent`."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Conversation,
        *,
        max_new_tokens: int,
        deployment: str,
        adapter_parameters: int,
        bytes_to_ship: int,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._max_new_tokens = max_new_tokens
        self.deployment = deployment
        self.adapter_parameters = adapter_parameters
        self.bytes_to_ship = bytes_to_ship
        self.prompt_tokens = model.count_prompt_tokens(prompt)
        self._sessions = Sessions()

    def reply(self, conversations: list[Conversation]) -> list[Reply | None]:
        return self._model.generate(
            self._prompt,
            conversations,
            max_new_tokens=self._max_new_tokens,
            progress="agent",
            sessions=self._sessions,
        )

    def write(self, conversations: list[Conversation], max_new_tokens: int) -> list[Reply | None]:
        return self._model.generate(
            self._prompt, conversations, max_new_tokens=max_new_tokens, progress="answers"
        )

    def read_replies(
        self, conversations: list[Conversation], replies: list[str]
    ) -> list[ReadReply]:
        return self._model.read_replies(self._prompt, conversations, replies)

    def log_probabilities(self, states: Tensor) -> Tensor:
        return self._model.log_probabilities(states)


def prompt_bytes(prompt: Conversation) -> int:
    """The size of a prompt's text, as a prompt file has it; 0 for none."""
    return len(format_prompt(prompt, "prompt").encode()) if prompt else 0


def load_base_agent(params: Params, prompt: Conversation, work: Path) -> ChatAgent:
    """The base model behind `prompt`; its replies are kept in `work` until the stage succeeds.

    What must be shipped is the prompt's text, as a prompt file has it.
    """
    model, tokenizer = load_base(params.model)
    return ChatAgent(
        LanguageModel(model, tokenizer, params.model, Journal(work / "replies.jsonl")),
        prompt,
        max_new_tokens=params.run_episodes.max_new_tokens,
        deployment="base",
        adapter_parameters=0,
        bytes_to_ship=prompt_bytes(prompt),
    )


def load_adapted_agent(
    params: Params, adapter: Path, prompt: Conversation, work: Path
) -> ChatAgent:
    """The base model with the adapter in the folder `adapter`, behind `prompt` (or none)."""
    model, tokenizer, deployment, trained = load_with_adapter(params.model, adapter)
    return ChatAgent(
        LanguageModel(model, tokenizer, params.model, Journal(work / "replies.jsonl")),
        prompt,
        max_new_tokens=params.run_episodes.max_new_tokens,
        deployment=deployment,
        adapter_parameters=trained,
        bytes_to_ship=(adapter / "adapter_model.safetensors").stat().st_size + prompt_bytes(prompt),
    )


def load_prefix_agent(params: Params, adapter: Path, prompt: Conversation, work: Path) -> ChatAgent:
    """The base model behind the trained prefix in the folder `adapter`, in place of `prompt`."""
    model, tokenizer, prefix, trained = load_with_prefix(params.model, adapter, prompt)
    language_model = LanguageModel(model, tokenizer, params.model, Journal(work / "replies.jsonl"))
    language_model.stand_in(prefix)
    return ChatAgent(
        language_model,
        prompt,
        max_new_tokens=params.run_episodes.max_new_tokens,
        deployment="trained prefix",
        adapter_parameters=trained,
        bytes_to_ship=(adapter / "adapter_model.safetensors").stat().st_size,
    )
