"""An export's README.md: the model card, with numbers from the records alone."""

from typing import Any

import pandas as pd

from gcd.core.records import FULL_PROMPT
from gcd.exports.base import BaseModel
from gcd.exports.facts import COMPARED, Facts
from gcd.exports.serving import Served, serving_sections
from gcd.report.tables import markdown
from gcd.report.transcripts import escape

FILES = {  # what may be in an export's folder
    "adapter/": "LoRA adapter in peft's format, with tokenizer, chat template and settings",
    "merged/": "base model and adapter in one, in transformers' format",
    "adapter.gguf": "the adapter for llama.cpp",
    "merged.gguf": "base model and adapter in one, for llama.cpp",
    "export.json": "where this comes from, and the SHA-256 of every file",
}
MEANINGS = {
    "success_rate": "share of test samples solved in full",
    "mean_score": "the task's own score of a sample, in [0, 1]",
    "relative_to_full_prompt": "mean score over that of the prompted base model, same samples",
    "valid_action_rate": "share of turns that hold an action",
    "teacher_agreement": "share of the teacher's states answered with the teacher's action",
    "mean_turns": "turns an episode",
    "prompt_recall": "edit similarity of the prompt and what is written when asked for it",
    "rouge_l": "the same by words",
    "fidelity_kl": "KL divergence from the prompted base model along its replies, in nats a token",
    "fidelity_top1_agreement": "share of these tokens where its likeliest token is the teacher's",
    "fidelity_exact_agreement": "share of replies that are the teacher's word for word",
    "fidelity_semantic_agreement": "cosine of its replies' embeddings with the teacher's, mean",
    "fidelity_format_validity": "share of replies in the format that was asked for",
    "fidelity_length_ratio": "length of its replies over that of the teacher's",
    "perplexity": "of paragraphs of plain prose",
    "perplexity_ratio": "the same over that of the base model without a prompt",
    "agreement": "share of positions of the base model's answers where its token is the likeliest",
    "kl": "KL divergence from the base model at those positions, in nats",
    "leak": "share of the prompt's words revealed to a user who asks for it, mean",
    "leak_difference": "the same less that of the prompted base model",
    "leak_worst": "the largest share",
    "longest_run": "longest run of the prompt's words in such a reply",
}


def front_matter(base: BaseModel) -> str:
    """The lines that the model hub reads."""
    lines = [f"license: {base.licence}"] if base.licence else []
    lines += [f"base_model: {base.name}"] if base.public else []
    lines += ["library_name: peft", "pipeline_tag: text-generation"]
    return "\n".join(["---", *lines, "tags:", "- prompt-internalization", "- lora", "---"])


def estimate(found: dict[str, float] | None) -> str:
    """ "0.312 (0.188 to 0.438)", without brackets where there is no interval."""
    if found is None:
        return ""
    value = f"{found['value']:.4g}"
    return f"{value} ({found['low']:.4g} to {found['high']:.4g})" if "low" in found else value


def metrics_table(facts: Facts) -> str:
    """One line a metric: what it is, the row, the rows that it stands between, its cases."""
    rows = [facts.row, *(row for row in COMPARED if row != facts.row)]
    lines = [
        {
            "Metric": f"{metric}: {MEANINGS[metric]}" if metric in MEANINGS else metric,
            **{row: estimate(found.get(row)) for row in rows},
            "n": str(int(found[facts.row]["n"])),
        }
        for metric, found in facts.metrics.items()
    ]
    return markdown(pd.DataFrame(lines))


def metrics_section(facts: Facts) -> list[str]:
    """How it was evaluated, or that no record says."""
    title = "## Evaluation"
    if not facts.metrics:
        return [title, f"Nothing is recorded of row {facts.row} of {facts.task}."]
    return [
        title,
        f"Held-out samples of {escape(facts.task)}, with intervals. {FULL_PROMPT} is the base "
        "model with its prompt, no_prompt the base model without it.",
        metrics_table(facts),
        f"Source: {' and '.join(f'`{path}`' for path in facts.sources)} of the run.",
    ]


def data_section(facts: Facts) -> list[str]:
    """What it was trained on, in counts."""
    data = [
        {
            "Pseudo data": name.replace("_", " "),
            "Kept": counts["kept"],
            "Rejected": sum(counts["rejected"].values()),
            "Reasons": "; ".join(f"{why}: {n}" for why, n in counts["rejected"].items()) or "none",
        }
        for name, counts in facts.data.items()
    ]
    terms = [
        {
            "Term of the loss": name.replace("_", " "),
            "Examples": counts["examples"],
            "Supervised tokens": counts["labels"],
        }
        for name, counts in facts.examples.items()
    ]
    return [
        "## Training data",
        "Written by models, from the prompt and the problems that the task shows them; no test "
        "sample is in it.",
        markdown(pd.DataFrame(data)),
        markdown(pd.DataFrame(terms)),
        "Source: `data/pseudo` and `examples.json` of the run.",
    ]


def about_section(facts: Facts, base: BaseModel, model: dict[str, Any], prompt_tokens: int) -> str:
    """The first table."""
    licence = base.licence or (
        "that of the base model's page on the hub" if base.public else "not recorded"
    )
    parameters = f"{model['parameters']:,} parameters"
    targets = ", ".join(facts.lora["target_modules"])
    lines = {
        "Base model": f"{escape(base.origin)} {parameters}, context {model['context']:,} tokens.",
        "Licence of the base model": escape(licence),
        "Replaces": f"a prompt of {prompt_tokens:,} tokens, SHA-256 `{facts.prompt_sha256}`",
        "Trained as": f"row {escape(facts.row)} of task {escape(facts.task)}",
        "Adapter": f"LoRA, rank {facts.lora['r']}, alpha {facts.lora['lora_alpha']}, on "
        f"{escape(targets)}",
    }
    table = [f"| {name} | {text} |" for name, text in lines.items()]
    return "\n".join(["| | |", "| :-- | :-- |", *table])


def use_section(facts: Facts, served: Served) -> list[str]:
    """What it is for, and what it is not."""
    measured = [f"`{name}`" for name in ("leak", "prompt_recall") if name in facts.metrics]
    above = f" (above: {', '.join(measured)})" if measured else ""
    return [
        "## Intended use and limits",
        "For what the prompt was written for, in its language and its form of user turns, where "
        "reading the prompt in every call costs too much. It is a model of the size named above "
        "and does no better than that model with the prompt.",
        "\n".join(
            [
                "- The prompt is frozen in the weights. An edited prompt needs a new run; a rule "
                "cannot be read off or switched off.",
                "- What is not under Evaluation was not measured, such as safety, other languages "
                "and long conversations; what is, comes from one training run.",
                "- An adapter is no vault: whoever can ask it may get parts of the prompt out of "
                f"it{above}. Put no secret into a prompt.",
                "- Other weights of the base model (quantised, or of another release) and other "
                "number formats answer differently. Evaluate what you deploy.",
                "- Servers read control tokens of the chat template in a user's text as control "
                "tokens; the repository, and so the evaluation, reads them as text. Remove them "
                "from what users send.",
                f"- The evaluation cut replies at {served.max_new_tokens} tokens.",
            ]
        ),
    ]


def render_card(
    facts: Facts, served: Served, model: dict[str, Any], prompt_tokens: int, files: dict[str, int]
) -> str:
    """The whole README.md.

    Args:
        facts: what the records say.
        served: what is there to be served.
        model: the base model's description, as in models/base/model.json.
        prompt_tokens: of the prompt, with the chat template around it.
        files: {path in the folder, a folder's with its slash: bytes}.
    """
    listed = pd.DataFrame(
        {"File": name, "What": FILES[name], "Bytes": f"{size:,}"} for name, size in files.items()
    )
    sections = [
        front_matter(served.base),
        f"# {served.name}",
        "A prompt, distilled into a LoRA adapter by Generative Context Distillation "
        "(arXiv 2411.15927): the base model with it answers without the prompt as it did with it, "
        "as far as the table below says.",
        about_section(facts, served.base, model, prompt_tokens),
        markdown(listed),
        *serving_sections(served),
        *data_section(facts),
        *metrics_section(facts),
        *use_section(facts, served),
    ]
    return "\n\n".join(sections) + "\n"
