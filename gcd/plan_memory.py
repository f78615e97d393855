"""The memory of training and generation, in closed form: what a device must hold at once.

Notation as in `gcd/cost.py`: d hidden size, D = heads x head size, K = key-value heads x head size,
I intermediate size, H heads, L layers, V vocabulary; r the rank of LoRA.
"""

from gcd.core.settings import LoraSettings, ModelSettings
from gcd.cost import BYTES, Architecture, ModelRecord

# 4 bits a weight; blocks of 64 share a scale of 8 bits, and 256 scales one of 32 (double
# quantisation; QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = 4 / 8 + 1 / 64 + 4 / (64 * 256)
LORA_BYTES = 4  # peft keeps LoRA weights in fp32, whatever the base's dtype
# Of the two moments of a LoRA weight. 8 bits: a byte each, and a scale of 32 bits for 256 of them.
OPTIMIZER_BYTES = {"adamw": 8.0, "paged_adamw_32bit": 8.0, "paged_adamw_8bit": 2 + 2 * 4 / 256}
# Bytes that a token leaves in each layer for the way back, by dtype: multiples of d, D, K, I, r, H
# and 1. Counted with torch's saved-tensor hooks over 14 random architectures, which they fit
# without a remainder (tests/test_plan.py counts again). bf16 saves little: LoRA reads in fp32.
SAVED = {"float32": (16, 8, 8, 16, 28, 4, 8), "bfloat16": (28, 8, 4, 10, 28, 4, 8)}
# What dropout in front of LoRA adds (on a CPU, where a mask is as large as its values).
SAVED_DROPOUT = {"float32": (32, 8, 0, 4, 0, 0, 0), "bfloat16": (20, 4, 0, 4, 0, 0, 0)}


def lora_parameters(model: Architecture, rank: int) -> int:
    """Weights of LoRA on all linear layers of the blocks: r (inputs + outputs) of each."""
    attention = model.heads * model.head_size
    key_value = model.key_value_heads * model.head_size
    ends = 2 * (model.hidden_size + attention) + 2 * (model.hidden_size + key_value)
    ends += 3 * (model.hidden_size + model.intermediate_size)
    return model.layers * rank * ends


def weight_bytes(model: ModelRecord, settings: ModelSettings, *, training: bool) -> int:
    """Bytes of the base model. NF4 holds the linear layers of the blocks; the rest is in `dtype`,
    but in fp32 while it is trained on (peft's preparation)."""
    if settings.quantization == "none":
        return model.parameters * BYTES[settings.dtype]
    linear = model.architecture.linear_weights
    rest = BYTES["float32" if training else settings.dtype]
    return round(NF4_BYTES * linear) + rest * (model.parameters - linear)


def activation_bytes(
    model: Architecture, tokens: int, dtype: str, lora: LoraSettings, *, checkpointing: bool
) -> int:
    """Bytes that a forward pass over `tokens` tokens keeps for the way back, without the head.

    With checkpointing these are the input of every layer, and all of one layer at a time.
    """
    attention = model.heads * model.head_size
    key_value = model.key_value_heads * model.head_size
    sizes = [model.hidden_size, attention, key_value, model.intermediate_size]
    sizes += [lora.rank, model.heads, 1]
    saved = sum(factor * size for factor, size in zip(SAVED[dtype], sizes, strict=True))
    if lora.dropout:
        extra = zip(SAVED_DROPOUT[dtype], sizes, strict=True)
        saved += sum(factor * size for factor, size in extra)
    if checkpointing:
        return tokens * (model.layers * model.hidden_size * BYTES[dtype] + saved)
    return tokens * model.layers * saved


def head_bytes(model: Architecture, labels: int, dtype: str) -> int:
    """Bytes around the language-model head: logits of the labels, their fp32 copy (none is made of
    fp32), log-probabilities and gradient."""
    values = 12 if dtype == "float32" else 14
    return labels * model.vocabulary_size * values
