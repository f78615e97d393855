"""The texts of prompt generation (PG): how a row is asked for its prompt, and what it answers.

Training reads them, and so does what asks a trained row for the prompt.
"""

from gcd.core.records import Conversation, Message, PairedOutput

PROMPT_GENERATION_REQUEST = """\
Two assistants got the same input.

Input:
{pseudo_input}

Output of the assistant that had no instructions:
{student_output}

Output of the assistant that had been given a prompt:
{teacher_output}

Write down the prompt that the second assistant had been given, and then the reason why it \
changed the output."""

PROMPT_GENERATION_TARGET = "Prompt:\n{prompt}\n\nReason:\n{reason}"
# By `pg_target`: the whole, and each part alone, for the same request.
PROMPT_GENERATION_TARGETS = {
    "prompt_and_reason": PROMPT_GENERATION_TARGET,
    "prompt": "Prompt:\n{prompt}",
    "reason": "Reason:\n{reason}",
}


def request(pair: PairedOutput) -> Conversation:
    """The conversation that asks for the prompt behind a pair's second output."""
    return [Message(role="user", content=PROMPT_GENERATION_REQUEST.format(**pair.model_dump()))]


def written_prompt(answer: str) -> str:
    """The prompt in an answer of PROMPT_GENERATION_TARGET's form: no headings, no reason.

    An answer of another form is taken whole.
    """
    heading, _, rest = PROMPT_GENERATION_TARGET.partition("{prompt}")
    prompt, _, _ = answer.strip().partition(rest.removesuffix("{reason}").rstrip())
    return prompt.removeprefix(heading.strip()).strip()
