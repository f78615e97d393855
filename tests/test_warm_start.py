"""`gcd_warm_start` begins as the adapter that it is given, and with no other."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from gcd.core.errors import UserError
from gcd.methods.gcd_warm_start import Settings, begin_with
from gcd.training.checkpoints import save_adapter
from gcd.training.lora import attach_lora
from tests.test_training import SETTINGS as LORA_SETTINGS
from tests.tiny import make_model

TEXT = {
    "sft_weight": 0.7,
    "pg_batch_size": 1,
    "pg_every": 6,
    "pg_max_length": None,
    "pg_target": "prompt_and_reason",
    "pg_reasons": "own",
}


def adapted(tokenizer: Any, seed: int, rank: int | None = None) -> Any:
    lora = LORA_SETTINGS.lora.model_copy(update={"rank": rank} if rank else {})
    settings = LORA_SETTINGS.model_copy(update={"lora": lora})
    return attach_lora(make_model(tokenizer), settings, four_bit=False, seed=seed)


def weights(model: Any) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: value.detach().clone() for name, value in named if value.requires_grad}


def settings(folder: Path, digest: str | None = None) -> Settings:
    data = (folder / "adapter_model.safetensors").read_bytes()
    found = digest or hashlib.sha256(data).hexdigest()
    return Settings.model_validate(TEXT | {"adapter": str(folder), "sha256": found})


@pytest.fixture
def saved(tokenizer: Any, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A trained adapter's folder, and its weights: nothing in it is zero."""
    model = adapted(tokenizer, seed=0)
    torch.manual_seed(1)
    values = {name: torch.randn_like(value) for name, value in weights(model).items()}
    save_adapter(model, values, tmp_path / "adapter")
    return tmp_path / "adapter", values


def test_all_weights_are_the_adapters_and_stay_trainable(tokenizer: Any, saved: Any) -> None:
    folder, values = saved
    model = adapted(tokenizer, seed=7)
    begin_with(model, settings(folder))
    found = weights(model)
    assert found.keys() == values.keys()
    for name, value in found.items():
        assert torch.equal(value, values[name])


def test_another_file_than_the_params_say(tokenizer: Any, saved: Any) -> None:
    with pytest.raises(UserError, match=r"SHA-256 is .*sha256` says 00"):
        begin_with(adapted(tokenizer, 0), settings(saved[0], "00"))


def test_no_file(tokenizer: Any, saved: Any, tmp_path: Path) -> None:
    elsewhere = settings(saved[0]).model_copy(update={"adapter": str(tmp_path / "none")})
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        begin_with(adapted(tokenizer, 0), elsewhere)


def test_another_rank(tokenizer: Any, saved: Any) -> None:
    model = adapted(tokenizer, 0, rank=3)
    with pytest.raises(UserError, match=r"not an adapter of this model with `train\.lora\.rank`"):
        begin_with(model, settings(saved[0]))
