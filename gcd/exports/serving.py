"""How to serve an export, as sections of its README.md. Commands run in the export's folder."""

import json
from dataclasses import dataclass

from gcd.core.settings import ModelSettings
from gcd.exports.base import BaseModel
from gcd.exports.settings import Gguf

ADAPTER_FILE, MERGED_FILE = "adapter.gguf", "merged.gguf"
PORT = 8080  # llama-server's own


@dataclass(frozen=True)
class Served:
    """What is there to be served, and how it was measured.

    Attributes:
        name: the folder's, which servers give the model.
        merged, gguf: which files were exported beside the adapter.
        model: how the base model was loaded.
        rank: of LoRA.
        max_new_tokens: of a reply.
        opening: a user turn, as the adapter is used to it.
        again: the command that exported, without --to and what follows.
    """

    name: str
    base: BaseModel
    merged: bool
    gguf: list[Gguf]
    model: ModelSettings
    rank: int
    max_new_tokens: int
    opening: str
    again: str


def code(language: str, *lines: str) -> str:
    """A fenced block."""
    return "\n".join([f"```{language}", *lines, "```"])


def console(*commands: str) -> str:
    """Commands of a shell."""
    return code("console", *(f"$ {command}" for command in commands))


def _messages(served: Served) -> str:
    """One user turn and no system message, as in Python."""
    return f'[{{"role": "user", "content": {json.dumps(served.opening, ensure_ascii=False)}}}]'


def transformers_code(served: Served, folder: str) -> str:
    """A program that answers `opening` greedily, as the row was measured.

    Args:
        served: what is there.
        folder: `adapter` or `merged`.
    """
    dtype = f"dtype=torch.{served.model.dtype}"
    four_bit = served.model.quantization == "nf4"
    adapted = folder == "adapter"
    names = ["AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig"]
    lines = ["import torch"]
    if adapted:
        lines.append("from peft import PeftModel")
    if four_bit:
        names.insert(2, "BitsAndBytesConfig")
    lines += [f"from transformers import {', '.join(names)}", ""]
    if four_bit:
        lines += [
            "four_bit = BitsAndBytesConfig(",
            '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,',
            f"    bnb_4bit_compute_dtype=torch.{served.model.dtype},",
            ")",
        ]
        dtype += ", quantization_config=four_bit"
    if adapted:
        merge = "" if four_bit else ".merge_and_unload()"
        lines += [
            f"base = AutoModelForCausalLM.from_pretrained({served.base.arguments}, {dtype})",
            f'model = PeftModel.from_pretrained(base, "adapter"){merge}.eval()',
        ]
    else:
        lines.append(f'model = AutoModelForCausalLM.from_pretrained("merged", {dtype}).eval()')
    return code(
        "python",
        *lines,
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
        f'greedy = GenerationConfig.from_pretrained("{folder}")',
        f"messages = {_messages(served)}",
        "read = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
        ").to(model.device)",
        "written = model.generate(**read, generation_config=greedy)[0, read.input_ids.shape[1] :]",
        "print(tokenizer.decode(written, skip_special_tokens=True).strip())",
    )


def transformers_section(served: Served) -> list[str]:
    """transformers and peft; the merged model where there is one."""
    parts = ["### transformers and peft"]
    if served.base.fetch:
        parts += ["The base model, in the weights that the adapter was trained on:"]
        parts += [console(*served.base.fetch)]
    parts += [transformers_code(served, "adapter")]
    if served.merged:
        parts += ["The merged model needs neither peft nor the base model:"]
        parts += [transformers_code(served, "merged")]
    return parts


def vllm_section(served: Served) -> list[str]:
    """vLLM, which nobody ran."""
    base = served.base
    revision = f" --revision {base.revision}" if base.revision else ""
    name = base.name if base.public else base.arguments.strip('"')
    parts = [
        "### vLLM",
        "**Untested**: no GPU was at hand.",
        console(
            f"vllm serve {name}{revision} --tokenizer adapter --dtype {served.model.dtype} \\",
            f"    --enable-lora --max-lora-rank {max(served.rank, 8)} "
            f"--lora-modules {served.name}=adapter",
        ).replace("\n$     ", "\n    "),
    ]
    if not base.exact:
        parts.append("The base model on the hub has other weights than the adapter was trained on.")
    if served.merged:
        parts.append("Or the merged model:")
        parts.append(
            console(
                f"vllm serve merged --served-model-name {served.name} --dtype {served.model.dtype}"
            )
        )
    return parts


def llama_cpp_section(served: Served) -> list[str]:
    """llama.cpp's server with what there is in GGUF, and OpenAI's client."""
    parts = ["### llama.cpp"]
    start = f"--alias {served.name} --port {PORT}"
    if "merged" in served.gguf:
        parts.append(console(f"llama-server --model {MERGED_FILE} {start}"))
    if "adapter" in served.gguf:
        base = served.base.gguf
        parts.append(
            "The adapter, with the base model's GGUF file (fetched as above). llama.cpp computes "
            "in its rounded numbers and splits text by its own tokenizer, so that some replies "
            "differ from the evaluated ones:"
            if base
            else "The adapter, with a GGUF file of the base model, here `base.gguf`:"
        )
        command = f"llama-server --model {base or 'base.gguf'} --lora {ADAPTER_FILE} {start}"
        parts.append(console(command))
    if not served.gguf:
        parts.append(f"There is no GGUF file here. `{served.again} --gguf merged` makes one.")
        return parts
    parts += [
        "Then, with OpenAI's client (`pip install openai`):",
        code(
            "python",
            "from openai import OpenAI",
            "",
            f'client = OpenAI(base_url="http://localhost:{PORT}/v1", api_key="none")',
            "reply = client.chat.completions.create(",
            f'    model="{served.name}",',
            f"    messages={_messages(served)},",
            "    temperature=0,",
            f"    max_tokens={served.max_new_tokens},",
            ")",
            "print(reply.choices[0].message.content)",
        ),
    ]
    return parts


def serving_sections(served: Served) -> list[str]:
    """All of them, and what holds for each."""
    return [
        "## Serve it",
        "Run the commands in this folder. Send **no system message**: the adapter stands for it. "
        f"It was measured greedily, with at most {served.max_new_tokens} tokens a reply "
        "(`generation_config.json`), and reads user turns of the form of the one below. "
        "transformers 5 or newer is needed: version 4 misreads `config.json` (`rope_parameters`).",
        *transformers_section(served),
        *vllm_section(served),
        *llama_cpp_section(served),
    ]
