"""A small random BERT with a vocabulary of its own, in seconds: `encoder.source: tiny`."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
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
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=source.vocabulary_size, special_tokens=SPECIAL, show_progress=False
    )
    words.train_from_iterator(texts, trainer)
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
