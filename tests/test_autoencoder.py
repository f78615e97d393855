"""The autoencoder of ICAE: what is shared and what moves, invariances, a text that comes back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.chat import encode_text
from gcd.core.errors import UserError
from gcd.core.params import check_sections, load_file
from gcd.training.autoencoder import (
    CONTINUATION,
    CONVERSATION,
    ITSELF,
    Autoencoder,
    all_labels,
    behind_slots,
    read_slots,
    read_text,
    reconstruction,
    slots_prefix,
)
from gcd.training.losses import Example, pack, read_row, token_loss_sum
from tests import tiny
from tests.tiny import make_model

HEADER = [1, 7]
TEXTS = [[20, 33, 5, 41, 90, 11, 62], [8, 70, 70, 15, 29]]
TRAIN = check_sections(load_file(Path("params.yaml")), "train").train
SETTINGS = TRAIN.model_copy(update={"lora": TRAIN.lora.model_copy(update={"rank": 4})})


def build(tokenizer: Any, base: Any = None, slots: int = 3, **changes: Any) -> Autoencoder:
    """An autoencoder of the two texts; LoRA's B is not zero, marks differ: all of it matters."""
    base = base or make_model(tokenizer)
    texts = [read_text(base, HEADER, ids) for ids in TEXTS]
    model = Autoencoder(
        base,
        texts,
        slots,
        SETTINGS.model_copy(update=changes),
        end=tokenizer.eos_token_id,
        vector_rate=10.0,
        blend=0.5,
        four_bit=False,
        seed=0,
    )
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.2)
    torch.nn.init.normal_(model.marks, std=0.1)
    return model


def example(model: Autoencoder, text: int, mark: int = ITSELF) -> Example:
    return behind_slots(HEADER, model.slot_ids(text), mark, all_labels(TEXTS[text]))


def loss(model: Autoencoder, examples: list[Example]) -> torch.Tensor:
    return token_loss_sum(model, pack(examples, torch.device("cpu")), read_slots).sum()


def gradients(model: Autoencoder, examples: list[Example]) -> torch.Tensor:
    model.zero_grad()
    loss(model, examples).backward()
    trained = [value for value in model.parameters() if value.requires_grad]
    return torch.cat(
        [torch.zeros_like(v).flatten() if v.grad is None else v.grad.flatten() for v in trained]
    )


def test_encoder_and_decoder_share_every_tensor_of_the_base(tokenizer):
    model = build(tokenizer)
    decoder = {value.data_ptr() for value in model.decoder.parameters()}
    frozen = [value for value in model.encoder.parameters() if not value.requires_grad]
    assert {value.data_ptr() for value in frozen} == decoder
    assert not any(value.requires_grad for value in model.decoder.parameters())
    names = {name.split(".")[0] for name, v in model.named_parameters() if v.requires_grad}
    assert names == {"encoder", "memory", "marks", "blend"}


def test_the_decoder_reads_without_lora_and_the_encoder_with_it(tokenizer):
    """The encoder's LoRA changes the slots, and no logits of the decoder."""
    base = make_model(tokenizer)
    batch = pack([Example([*HEADER, *TEXTS[0]], [True] * 9)], base.device)
    before = read_row(read_text(base, HEADER, [5]) and base, batch)
    model = build(tokenizer, base)
    assert torch.equal(read_row(model.decoder, batch), before)
    assert not torch.allclose(read_row(model.encoder.get_base_model(), batch), before)
    slots = model.encode(0)
    model.encoder.disable_adapter_layers()
    assert not torch.allclose(model.encode(0), slots)


def test_a_memory_token_reads_the_whole_text_and_no_other_one(tokenizer):
    """The same memory tokens behind a text whose first token differs make other slots."""
    model = build(tokenizer)
    before = model.encode(0)
    changed = read_text(model.decoder, HEADER, [TEXTS[0][0] + 1, *TEXTS[0][1:]])
    model.texts[1] = changed
    assert torch.equal(model.encode(0), before)
    model.texts[0] = replace(model.texts[0], layers=changed.layers)
    assert not torch.allclose(model.encode(0), before)


def test_memory_tokens_begin_as_the_most_surprising_tokens_in_order(tokenizer):
    """Against the model's own log-probabilities."""
    base = make_model(tokenizer)
    text = read_text(base, HEADER, TEXTS[0])
    base.set_attn_implementation("sdpa")
    ids = torch.tensor([[*HEADER, *TEXTS[0]]])
    scores = base(ids).logits[0].log_softmax(-1)
    expected = -scores[len(HEADER) - 1 : -1].gather(1, ids[0, len(HEADER) :, None])[:, 0]
    assert torch.allclose(text.losses, expected, atol=1e-5)
    places = sorted(sorted(range(7), key=lambda place: -expected[place])[:3])
    assert text.anchors(3) == [TEXTS[0][place] for place in places]
    assert text.anchors(99) == TEXTS[0]


def test_the_start_of_a_text_is_what_reading_it_alone_gives(tokenizer):
    base = make_model(tokenizer)
    start, alone = read_text(base, HEADER, TEXTS[0]).start(4), read_text(base, HEADER, TEXTS[0][:4])
    assert start.ids == alone.ids
    assert torch.allclose(start.losses, alone.losses, atol=1e-5)
    for pair, other in zip(start.layers, alone.layers, strict=True):
        for one, two in zip(pair, other, strict=True):
            assert torch.allclose(one, two, atol=1e-5)


def test_a_batch_is_the_sum_of_its_examples(tokenizer):
    """Any number of examples, of several texts, and one whose slots are fewer than the others'."""
    model = build(tokenizer, slots=6)
    assert [len(model.slot_ids(text)) for text in (0, 1)] == [6, 5]
    examples = [example(model, 0), example(model, 1), example(model, 0, CONTINUATION)]
    with torch.no_grad():
        alone = [loss(model, [one]).item() for one in examples]
        for count in (2, 3):
            together = loss(model, examples[:count]).item()
            assert together == pytest.approx(sum(alone[:count]), rel=1e-5)
    whole = gradients(model, examples)
    parts = torch.stack([gradients(model, [one]) for one in examples])
    assert torch.allclose(whole, parts.sum(0), atol=1e-4)
    assert len(set(alone)) == 3


def test_gradient_checkpointing_gives_the_same_gradient(tokenizer):
    """In both passes: what is computed again, is so with LoRA in the encoder and without below."""
    made, calls = [], []
    for checkpointing in (False, True):
        model = build(tokenizer, gradient_checkpointing=checkpointing).train()
        read: list[int] = []
        for part in (model.decoder, model.encoder.get_base_model()):
            part.model.layers[0].mlp.register_forward_pre_hook(lambda *_, r=read: r.append(1))
        made.append(gradients(model, [example(model, 0), example(model, 1)]))
        calls.append(len(read))
    assert calls == [3, 6]
    assert torch.equal(made[0], made[1])
    assert made[0].abs().max() > 1e-3


def test_every_kind_of_trained_weight_gets_a_gradient(tokenizer):
    model = build(tokenizer)
    gradients(model, [example(model, 0)])
    for name, value in model.named_parameters():
        assert (value.grad is not None and value.grad.abs().max() > 0) == value.requires_grad, name


def test_slots_that_were_kept_are_read_as_in_training(tokenizer):
    """Header, slots and mark as keys and values, and the conversation behind them."""
    model = build(tokenizer)
    rest = Example([4, 9, 30, 12], [False, False, True, True])
    trained = behind_slots(HEADER, model.slot_ids(0), CONVERSATION, rest)
    batch = pack([trained], torch.device("cpu"))
    with torch.no_grad():
        expected = read_slots(model, batch)
        kept = torch.cat([model.encode(0), model.mark(CONVERSATION)])
        prefix = slots_prefix(model.decoder, [*HEADER, *TEXTS[0]], HEADER, kept)
        assert len(prefix) == len(HEADER) + 3 + 1
        model.decoder.set_attn_implementation("packed")
        found = read_row(model.decoder, pack([rest], torch.device("cpu")), prefix=prefix.layers)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_text_comes_back_after_a_few_steps(taught):
    """Behind a frozen model that has learnt to talk; a random one does what it does."""
    tokenizer = AutoTokenizer.from_pretrained(taught)
    base = AutoModelForCausalLM.from_pretrained(taught).eval()
    ids = encode_text(tokenizer, tiny.PROMPT)[20:24]
    model = Autoencoder(
        base,
        [read_text(base, HEADER, ids)],
        4,
        SETTINGS,
        end=tokenizer.eos_token_id,
        vector_rate=10.0,
        blend=0.1,
        four_bit=False,
        seed=0,
    )
    task = behind_slots(HEADER, model.slot_ids(0), ITSELF, all_labels(ids))
    first = reconstruction(model, task)
    optimizer = torch.optim.Adam([v for v in model.parameters() if v.requires_grad], lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        loss(model, [task]).backward()
        optimizer.step()
    last = reconstruction(model, task)
    assert first["nats_per_token"] > 1
    assert last["nats_per_token"] < 0.1
    assert last["right_tokens"] == 1.0


def test_a_model_in_parts_is_refused(tokenizer, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"FSDP cannot divide.*ddp\.yaml"):
        build(tokenizer)
