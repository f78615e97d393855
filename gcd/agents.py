"""Agents: a language model, the prompt it carries (or none), its adapter (or none)."""

from pathlib import Path

from gcd.core.interfaces import Reply
from gcd.core.journal import Journal
from gcd.core.language_model import LanguageModel, load_base, load_with_adapter
from gcd.core.params import Params
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
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._max_new_tokens = max_new_tokens
        self.deployment = deployment
        self.adapter_parameters = adapter_parameters
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


def load_base_agent(params: Params, prompt: Conversation, work: Path) -> ChatAgent:
    """The base model behind `prompt`; its replies are kept in `work` until the stage succeeds."""
    model, tokenizer = load_base(params.model)
    return ChatAgent(
        LanguageModel(model, tokenizer, params.model, Journal(work / "replies.jsonl")),
        prompt,
        max_new_tokens=params.run_episodes.max_new_tokens,
        deployment="base",
        adapter_parameters=0,
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
    )
