"""ICAE: what is shared and what moves, invariances, a text that comes back, what is shipped."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.chat import encode_text, header_ids, prompt_ids
from gcd.core.errors import UserError
from gcd.core.params import check_sections, load_file
from gcd.core.prompt import parse_prompt
from gcd.core.records import PairedOutput, PseudoConversation
from gcd.data import PseudoData
from gcd.methods import icae
from gcd.methods.icae import PretrainingSettings, choose
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
from gcd.training.terms import Visit
from gcd.training.trainer import Trainer
from tests import tiny
from tests.tiny import assistant, make_model, user

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


def test_shares_of_the_prompt_and_of_continuations():
    """End points by hand; in between, near the share over many visits; the same on resuming."""
    pairs = [(Example([text, 0], [True] * 2), Example([text, 1], [True] * 2)) for text in range(3)]
    visits = [Visit(pairs[0][0], 0, f"0/autoencoding/{epoch}/0") for epoch in range(400)]

    def drawn(prompt_share: float, lm_share: float) -> list[list[int]]:
        settings = PretrainingSettings(
            steps=1, learning_rate=1.0, prompt_share=prompt_share, lm_share=lm_share, texts=2
        )
        made = [one.ids for one in choose(pairs, settings, visits)]
        assert made[7:9] == [one.ids for one in choose(pairs, settings, visits[7:9])]
        return made

    assert drawn(1.0, 0.0) == [[0, 0]] * 400
    assert drawn(1.0, 1.0) == [[0, 1]] * 400
    assert {text for text, _ in drawn(0.0, 0.0)} == {1, 2}
    mixed = drawn(0.75, 0.25)
    assert sum(text == 0 for text, _ in mixed) / 400 == pytest.approx(0.75, abs=0.06)
    assert sum(kind for _, kind in mixed) / 400 == pytest.approx(0.25, abs=0.06)
    only = choose(
        pairs[:1],
        PretrainingSettings(steps=1, learning_rate=1.0, prompt_share=0.0, lm_share=0.0, texts=0),
        visits,
    )
    assert {one.ids[0] for one in only} == {0}


def test_a_model_in_parts_is_refused(tokenizer, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"FSDP cannot divide.*ddp\.yaml"):
        build(tokenizer)


# --- The method, from data to replies -------------------------------------------------------------


@pytest.fixture
def repository(tokenizer, tmp_path, monkeypatch):
    """A repository's folder with a tiny base model and settings for it; returns the params."""
    tiny.save(make_model(tokenizer), tokenizer, tmp_path / "models/base")
    (tmp_path / "models/base/model.json").write_text('{"source": "tiny"}')
    file = load_file(Path("params.yaml"))
    file["methods"]["icae"].update(slots=[4])
    file["methods"]["icae"]["pretraining"].update(steps=5, texts=2)
    file["tasks"]["os_interaction"]["training"].update(epochs=2, batch_size=2)
    file["train"].update(checkpoint_every=2)
    monkeypatch.chdir(tmp_path)
    return check_sections(
        file,
        *("seed", "model", "train", "run_episodes"),
        *("tasks.os_interaction.training", "methods.icae"),
    )


def pseudo_data() -> PseudoData:
    text = tiny.PROMPT.strip()
    conversation = [user("please count the files"), assistant("count the files now")]
    pair = PairedOutput(index=0, pseudo_input="a", teacher_output="b", student_output="c")
    return PseudoData(
        prompt=text,
        prompt_messages=parse_prompt(text, "prompt"),
        pairs=[pair],
        reasons={0: "count the files"},
        conversations=[
            PseudoConversation(index=index, messages=conversation, end="committed")
            for index in range(3)
        ],
    )


def fit(params, folder: Path, work: Path) -> str:
    """Train; returns the digest of all files."""
    icae.fit_slots(pseudo_data(), 4, params, folder / "icae_4", work)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_equal_seeds_give_equal_bytes_and_a_killed_run_too(repository, tmp_path, monkeypatch):
    """Killed in either phase, after a step without a checkpoint."""
    expected = fit(repository, tmp_path / "a", tmp_path / "a-work")
    assert fit(repository, tmp_path / "b", tmp_path / "b-work") == expected
    step = Trainer.step
    done: list[int] = []

    def killed(self: Trainer) -> None:
        done.append(1)
        if len(done) in (4, 9):
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(Trainer, "step", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(repository, tmp_path / "c", tmp_path / "c-work")
    assert fit(repository, tmp_path / "c", tmp_path / "c-work") == expected
    assert len(done) == 5 + 3 + 2 + 2


def test_what_is_recorded_and_what_is_shipped(repository, tokenizer, tmp_path, monkeypatch):
    fit(repository, tmp_path / "a", tmp_path / "a-work")
    out = tmp_path / "a/icae_4"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    records = ["loss.csv", "training.json", "examples.json"]
    pretraining = {f"pretraining/{name}" for name in records}
    assert names == {*records, *pretraining, "reconstruction.json", "slots.safetensors"}
    first, both = (
        json.loads((out / name / "training.json").read_text()) for name in ("pretraining", ".")
    )
    assert first["optimizer_steps"] == 5
    assert both["optimizer_steps"] == 5 + 3
    assert both["flops"] > first["flops"]
    found = json.loads((out / "reconstruction.json").read_text())
    assert set(found) == {"untrained", "pretraining", "instruction"}
    assert found["pretraining"]["nats_per_token"] < found["untrained"]["nats_per_token"]

    data = pseudo_data()
    monkeypatch.setattr(icae, "read_prompt", lambda _: (data.prompt, data.prompt_messages))
    conversations = [[user("please count the files")], [user("count")]]
    replies = []
    for work in ("one", "two"):
        agent = icae.load_agent(
            "icae_4", "os_interaction", repository, tmp_path / "a", tmp_path / work
        )
        replies.append(agent.reply(conversations))
    assert replies[0] == replies[1]
    assert agent.deployment == "trained prefix"
    header = header_ids(tokenizer, data.prompt_messages)
    prompt = prompt_ids(tokenizer, data.prompt_messages)
    assert prompt[: len(header)] == header
    assert agent.prompt_tokens == len(header) + 4 + 1 < len(prompt)
    assert agent.adapter_parameters == 5 * 64


def test_more_slots_than_the_prompt_has_tokens_are_refused(repository, tmp_path):
    with pytest.raises(UserError, match=r"methods\.icae\.slots.*999 slots for a prompt of"):
        icae.fit_slots(pseudo_data(), 999, repository, tmp_path / "a", tmp_path / "a-work")
