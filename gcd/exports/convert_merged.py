"""llama.cpp's convert_hf_to_gguf.py, told two things that it does not find out by itself.

python -P gcd/exports/convert_merged.py CONVERTERS arguments of convert_hf_to_gguf.py …

- It names a tokenizer's way of splitting text by a hash over one text's token ids, a list of known
  models'. A tokenizer whose file says that it splits as GPT-2's is "gpt-2", whoever's it is: the
  embedded model's, which transformers read from GGUF, and the tiny one's are in no such list.
- It asks for the package sentencepiece before it looks whether the model has such a tokenizer. An
  export has a tokenizer.json and never a tokenizer.model.
"""

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any


def splits_as_gpt2(tokenizer: str) -> bool:
    """Whether a tokenizer.json's text says byte-level BPE, split by GPT-2's rule alone."""
    parts = json.loads(tokenizer)
    splitting = parts["pre_tokenizer"] or {}
    return bool(
        parts["model"]["type"] == "BPE"
        and not parts["model"].get("ignore_merges")
        and parts["normalizer"] is None
        and splitting.get("type") == "ByteLevel"
        and splitting.get("use_regex")
        and not splitting.get("add_prefix_space")
    )


def main(converter: Path, arguments: list[str]) -> None:
    """Convert; the script's own exit status and messages."""
    sys.path.insert(0, str(converter))
    model = importlib.import_module("conversion.base").TextModel
    recognise = model.get_vocab_base_pre

    def name_of_splitting(self: Any, tokenizer: Any) -> Any:
        if splits_as_gpt2(tokenizer.backend_tokenizer.to_str()):
            return "gpt-2"
        return recognise(self, tokenizer)

    def no_sentencepiece(self: Any) -> None:
        raise FileNotFoundError("an export has no tokenizer.model")

    model.get_vocab_base_pre = name_of_splitting
    model._create_vocab_sentencepiece = no_sentencepiece
    script = converter / "convert_hf_to_gguf.py"
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
