"""Methods from data to agents: what they weigh and count, what stands before their agents."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gcd.core.errors import RowFailure, UserError
from gcd.core.params import Params, check_sections
from gcd.methods import cartridge, gcd_kld, prompt_prepending, seqkd_kld
from gcd.profiles import merge_profile
from gcd.training.losses import token_loss_sum
from tests import tiny
from tests.miniature import ROOT
from tests.test_icae import pseudo_data
from tests.test_training import run, term
from tests.tiny import make_model


@pytest.fixture
def repository(tokenizer, tmp_path, monkeypatch):
    """A repository's folder with a tiny base model; every method reads the same pseudo data."""
    tiny.save(make_model(tokenizer), tokenizer, tmp_path / "models/base")
    (tmp_path / "models/base/model.json").write_text('{"source": "tiny"}')
    for method in (cartridge, gcd_kld, prompt_prepending, seqkd_kld):
        monkeypatch.setattr(method, "read_pseudo_data", lambda task: pseudo_data())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params(method: str, **changes) -> Params:
    """Of a small run; `changes` are of the method's section."""
    file = YAML(typ="safe").load(
        merge_profile((ROOT / "params.yaml").read_text(), "all", ROOT / "profiles")
    )
    file["methods"][method].update(changes)
    file["tasks"]["os_interaction"]["training"].update(epochs=3, batch_size=1)
    sections = ("seed", "model", "train", "run_episodes", "tasks.os_interaction.training")
    return check_sections(file, *sections, f"methods.{method}")


def fit(method, folder: Path, name: str, **changes) -> Path:
    """Fit `method` into `folder`/`name`, which is returned."""
    out, work = folder / name, folder / f"{name}-work"
    work.mkdir()
    made = params(method.__name__.rpartition(".")[2], **changes)
    method.fit("os_interaction", made, out, work)
    return out


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "loss.csv").open() as file:
        return list(csv.DictReader(file))


def test_gcd_kld_weighs_three_losses(repository: Path):
    """λ · SFT + (1 - λ) · PG + μ · divergence, PG in every second step."""
    section = params("gcd_kld").method.divergence.model_dump() | {"weight": 0.5}
    changes = {"sft_weight": 0.75, "pg_every": 2, "divergence": section}
    rows = read_rows(fit(gcd_kld, repository, "out", **changes))
    assert len(rows) == 9
    for step, row in enumerate(rows):
        assert bool(row["prompt_generation"]) == (step % 2 == 0)
        expected = 0.75 * float(row["sft"]) + 0.5 * float(row["divergence"])
        expected += 0.25 * float(row["prompt_generation"] or 0)
        assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)


def test_reading_the_teacher_is_counted_once(repository: Path, monkeypatch):
    counted = json.loads((fit(seqkd_kld, repository, "a") / "training.json").read_text())
    monkeypatch.setattr(seqkd_kld, "add_flops", lambda *_: None)
    trained = json.loads((fit(seqkd_kld, repository, "b") / "training.json").read_text())
    more = counted.pop("flops") - trained.pop("flops")
    assert counted == trained
    # The teacher reads three conversations behind a prompt, forwards; the student reads them nine
    # times, forwards and backwards, and divides by the head: neither is nothing or most of all.
    assert 0 < more < json.loads((repository / "b/training.json").read_text())["flops"]


def test_a_prompt_in_training_and_at_will_in_front_of_the_agent(repository: Path, monkeypatch):
    out = fit(prompt_prepending, repository, "out", shares=[100])
    messages = pseudo_data().prompt_messages
    monkeypatch.setattr(prompt_prepending, "read_prompt", lambda task: ("", messages))
    made = params("prompt_prepending", shares=[100])
    agents = [
        prompt_prepending.load_agent(row, "os_interaction", made, out, repository)
        for row in prompt_prepending.rows(made.method)
    ]
    without, behind = (agent.prompt_tokens for agent in agents)
    assert behind > without == 0
    assert agents[0].adapter_parameters == agents[1].adapter_parameters > 0
    # The row with the prompt has no adapter of its own.
    assert [path.name for path in sorted(out.iterdir())] == ["prompt_prepending_100"]


def test_a_cartridge_must_have_something_to_train(repository: Path):
    with pytest.raises(UserError, match=r"frozen_slots`: expected fewer .* got 4"):
        fit(cartridge, repository, "out", slots=[8, 4], frozen_slots=4)


def test_a_loss_that_is_not_finite_fails_the_row(tokenizer, tmp_path: Path):
    def loss_sums(model, batch):
        return token_loss_sum(model, batch) * float("nan")

    with pytest.raises(RowFailure, match="The loss is nan at step 1"):
        run(tokenizer, tmp_path, "out", [replace(term(), loss_sums=loss_sums)])
