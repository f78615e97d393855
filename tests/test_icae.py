"""The method ICAE, from data to replies: its schedule, resuming, what is recorded and shipped."""

import hashlib
import json
from pathlib import Path

import pytest

from gcd.core.chat import header_ids, prompt_ids
from gcd.core.errors import UserError
from gcd.core.params import check_sections, load_file
from gcd.core.prompt import parse_prompt
from gcd.core.records import PairedOutput, PseudoConversation
from gcd.data import PseudoData
from gcd.methods import icae
from gcd.methods.icae import PretrainingSettings, choose
from gcd.training.losses import Example
from gcd.training.terms import Visit
from gcd.training.trainer import Trainer
from tests import tiny
from tests.tiny import assistant, make_model, user


def test_shares_of_the_prompt_and_of_continuations():
    """End points by hand; in between, near the share over many visits; the same on resuming."""
    pairs = [(Example([text, 0], [True] * 2), Example([text, 1], [True] * 2)) for text in range(3)]
    visits = [Visit(pairs[0][0], 0, f"0/autoencoding/{epoch}/0") for epoch in range(400)]

    def drawn(prompt_share: float, lm_share: float) -> list[list[int]]:
        settings = PretrainingSettings(
            steps=1,
            more_steps={},
            learning_rate=1.0,
            prompt_share=prompt_share,
            lm_share=lm_share,
            texts=2,
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
        PretrainingSettings(
            steps=1,
            more_steps={},
            learning_rate=1.0,
            prompt_share=0.0,
            lm_share=0.0,
            texts=0,
        ),
        visits,
    )
    assert {one.ids[0] for one in only} == {0}


@pytest.fixture
def repository(tokenizer, tmp_path, monkeypatch):
    """A repository's folder with a tiny base model and settings for it; returns the params."""
    tiny.save(make_model(tokenizer), tokenizer, tmp_path / "models/base")
    (tmp_path / "models/base/model.json").write_text('{"source": "tiny"}')
    file = load_file(Path("params.yaml"))
    file["methods"]["icae"].update(slots=[4])
    file["methods"]["icae"]["pretraining"].update(
        steps=2, more_steps={"toy": 3, "other": 9}, texts=2
    )
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
    icae.fit_slots("toy", pseudo_data(), 4, params, folder / "icae_4", work)
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
        icae.fit_slots("toy", pseudo_data(), 999, repository, tmp_path / "a", tmp_path / "a-work")
