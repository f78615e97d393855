"""prompt_recall: what an agent writes when it is asked for the prompt as in PG training.

A row that internalised its prompt by writing it down can perhaps still do so; one that learnt to
act alone need not. The agent gets the request of a PG example, behind the prompt that it carries
itself, if any, and answers greedily with at most `recall_tokens` tokens. So only the beginning of
the prompt is compared: as much of it as an answer of that many tokens can hold, heading included.

Two measures in [0, 1], 1 for the same text and 0 for silence:

edit_similarity  1 - d / max(m, n): Levenshtein distance d of texts of m and n characters.
rouge_l          F1 of the longest common subsequence of words, 2 l / (m + n) (Lin 2004), words as
                 white space divides them.
"""

from typing import Any

from rapidfuzz.distance import LCSseq, Levenshtein

from gcd.core.chat import encode_text
from gcd.core.errors import UserError
from gcd.core.interfaces import Agent
from gcd.core.prompt_generation import PROMPT_GENERATION_TARGET, request, written_prompt
from gcd.core.records import PairedOutput, PromptRecall


def prompt_opening(tokenizer: Any, prompt: str, tokens: int) -> str:
    """As much of `prompt` as an answer of `tokens` tokens holds, which begins with a heading.

    Raises:
        UserError: that is nothing.
    """
    heading = PROMPT_GENERATION_TARGET.partition("{prompt}")[0]
    answer = tokenizer.decode(encode_text(tokenizer, heading + prompt)[:tokens])
    opening = written_prompt(answer)
    if not opening or not answer.startswith(heading.strip()):
        raise UserError(
            f"params.yaml: key `run_episodes.recall_tokens`: expected enough tokens for a heading "
            f"and the beginning of the prompt, got {tokens}. Raise it."
        )
    return opening


def rouge_l(written: str, expected: str) -> float:
    """See above; 0 if either text has no word."""
    first, second = written.split(), expected.split()
    if not first or not second:
        return 0.0
    return 2 * LCSseq.similarity(first, second) / (len(first) + len(second))


def recall_prompt(
    agent: Agent, opening: str, pairs: list[PairedOutput], tokens: int
) -> list[PromptRecall]:
    """Ask for the prompt once for each pair.

    Args:
        agent: a row.
        opening: what it should write, from `prompt_opening` with the same `tokens`.
        pairs: what the requests show, one each.
        tokens: an answer's limit. A request that does not fit the context counts as silence.
    """
    replies = agent.write([request(pair) for pair in pairs], tokens)
    records = []
    for pair, reply in zip(pairs, replies, strict=True):
        text = reply.text if reply else ""
        written = written_prompt(text)
        records.append(
            PromptRecall(
                index=pair.index,
                text=text,
                edit_similarity=Levenshtein.normalized_similarity(written, opening),
                rouge_l=rouge_l(written, opening),
            )
        )
    return records
