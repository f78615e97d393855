"""A small random BERT with a vocabulary of its own, in seconds: `encoder.source: tiny`."""

from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

from gcd.core.settings import Count, Section

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TinyEncoderSource(Section):
    """Sizes of the random encoder, and of the vocabulary that is made of the texts at hand."""

    hidden_size: Count
    layers: Count
    heads: Count
    vocabulary_size: Count
    context: Count


def save_tiny_encoder(source: TinyEncoderSource, texts: list[str], seed: int, folder: Path) -> None:
    """Write an encoder without a classification layer into `folder`, in transformers' format."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    plain = [normalizer.normalize_str(text) for text in texts]
    counts = Counter(word for text in plain for word, _ in splitter.pre_tokenize_str(text))
    signs = sorted({sign for word in counts for sign in word})
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    # The library's own trainer numbers the tokens differently from run to run.
    known = dict.fromkeys([*SPECIAL, *signs, *(f"##{sign}" for sign in signs), *frequent])
    vocabulary = {word: number for number, word in enumerate(list(known)[: source.vocabulary_size])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizer
    words.pre_tokenizer = splitter
    tokenizer = BertTokenizerFast(
        tokenizer_object=words, model_max_length=source.context, do_lower_case=True
    )
    torch.manual_seed(seed)
    model = BertForTokenClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=source.hidden_size,
            num_hidden_layers=source.layers,
            num_attention_heads=source.heads,
            intermediate_size=4 * source.hidden_size,
            max_position_embeddings=source.context,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    tokenizer.save_pretrained(folder)
    model.bert.save_pretrained(folder)
