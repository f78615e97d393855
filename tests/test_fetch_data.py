"""Fetching real data: whole or not at all, checked, from a repository and a hub made here."""

import hashlib
import logging
import shutil
import subprocess
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from gcd.benchmark_sources import BENCHMARKS, Benchmark, GitSource, HubSource, fetch
from gcd.core.errors import UserError
from stages import fetch_data

CONTENT = '{"a": 1}\r\n'


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "core.autocrlf=false"]
    command = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> GitSource:
    """A repository whose pinned commit is not its newest."""
    folder = tmp_path / "origin"
    for name in ("data/one.json", "data/deep/two.json", "other/big.bin", "LICENSE"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CONTENT, newline="")
    git(folder, "init", "-q")
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "pinned")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "data/one.json").write_text("changed")
    git(folder, "commit", "-qam", "later")
    paths = {"LICENSE": "LICENSE", "data": "std"}
    return GitSource(address=f"file://{folder}", commit=commit, paths=paths)


def benchmark(source: GitSource | HubSource, **sha256: str) -> Benchmark:
    return Benchmark(
        name="A benchmark",
        licence="A licence",
        source=source,
        sha256={name.replace("__", "/") + ".json": value for name, value in sha256.items()},
    )


def fetched() -> list[str]:
    return sorted(
        path.relative_to("data/raw/x").as_posix()
        for path in Path("data/raw/x").rglob("*")
        if path.is_file()
    )


def nothing_left() -> bool:
    return not list(Path("data/raw").glob("*"))


def test_folders_of_a_commit(repository, caplog):
    caplog.set_level(logging.INFO)
    fetch("x", benchmark(repository, std__one=digest(CONTENT.encode())))
    assert fetched() == ["LICENSE", "std/deep/two.json", "std/one.json"]
    assert Path("data/raw/x/std/one.json").read_bytes() == CONTENT.encode()
    assert "Licence: A licence" in caplog.messages[0]
    assert caplog.messages[-1] == ("To use it: dvc exp run -S tasks.x.data=files")


def test_what_is_there_is_not_fetched_again(repository, caplog):
    caplog.set_level(logging.INFO)
    fetch("x", benchmark(repository))
    shutil.rmtree(repository.address.removeprefix("file://"))
    fetch("x", benchmark(repository))
    assert "is there already" in caplog.text


def test_a_wrong_checksum_leaves_nothing(repository):
    with pytest.raises(UserError, match=r"one\.json: SHA-256 is [0-9a-f]{64}, expected 0"):
        fetch("x", benchmark(repository, std__one="0"))
    assert nothing_left()


def test_a_commit_that_is_not_there(repository):
    gone = GitSource(repository.address, "1" * 40, repository.paths)
    with pytest.raises(UserError, match="cannot be fetched: git fetch: "):
        fetch("x", benchmark(gone))
    assert nothing_left()


def test_a_file_that_is_not_there(repository):
    more = GitSource(repository.address, repository.commit, {"data": "std", "more": "more"})
    with pytest.raises(UserError, match="holds no more"):
        fetch("x", benchmark(more))
    assert nothing_left()


def test_no_network(repository):
    nowhere = GitSource("http://127.0.0.1:9/none", repository.commit, repository.paths)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        fetch("x", benchmark(nowhere))
    assert "\n" not in str(caught.value)
    assert nothing_left()


# The hub.


def packed(tmp_path: Path, password: str | None) -> Path:
    """Two splits, of which one is wanted."""
    for split in ("test_website", "test_task"):
        folder = tmp_path / "pack" / split
        folder.mkdir(parents=True)
        (folder / f"{split}_0.json").write_text("[]")
    archive = tmp_path / "test.zip"
    if password is None:
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted((tmp_path / "pack").rglob("*.json")):
                file.write(path, path.relative_to(tmp_path / "pack"))
        return archive
    program = shutil.which("zip")
    if program is None:
        pytest.skip("needs the program zip to encrypt an archive")
    command = [program, "-qr", "-P", password, str(archive), "."]
    subprocess.run(command, check=True, cwd=tmp_path / "pack")
    return archive


def hub(
    archive: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> Benchmark:
    """A hub that has the archive and one more file."""
    files = {"test.zip": archive.read_bytes(), "scores.pkl": b"scores"}

    def download(name: str, file: str, *, repo_type: str, revision: str, local_dir: Path) -> str:
        assert (name, repo_type, revision) == ("a/b", "dataset", "r")
        if error is not None:
            raise error
        (local_dir / file).write_bytes(files[file])
        (local_dir / ".cache").mkdir(exist_ok=True)
        return str(local_dir / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    source = HubSource("a/b", "r", ["scores.pkl"], "test.zip", b"mind2web", "test_website")
    sums = {name: digest(content) for name, content in files.items()}
    return Benchmark("A benchmark", "A licence", source, sums)


@pytest.mark.parametrize("password", [None, "mind2web"])
def test_the_wanted_part_of_an_archive(tmp_path, monkeypatch, password):
    fetch("x", hub(packed(tmp_path, password), monkeypatch))
    assert fetched() == ["scores.pkl", "test_website/test_website_0.json"]
    assert Path("data/raw/x/test_website/test_website_0.json").read_text() == "[]"


def test_a_damaged_download_leaves_nothing(tmp_path, monkeypatch):
    archive = packed(tmp_path, None)
    wanted = hub(archive, monkeypatch)
    wanted.sha256["test.zip"] = "0"
    with pytest.raises(UserError, match=r"test\.zip: SHA-256 is "):
        fetch("x", wanted)
    assert nothing_left()


def test_the_hub_is_out_of_reach(tmp_path, monkeypatch):
    wanted = hub(packed(tmp_path, None), monkeypatch, ConnectionError("no\nroute"))
    with pytest.raises(
        UserError, match="cannot be downloaded: no route Check the network"
    ) as caught:
        fetch("x", wanted)
    assert "\n" not in str(caught.value)
    assert nothing_left()


# The table.


def test_every_source_is_pinned():
    for entry in BENCHMARKS.values():
        source = entry.source
        pin = source.commit if isinstance(source, GitSource) else source.revision
        assert len(pin) == 40
        assert entry.licence and all(len(value) == 64 for value in entry.sha256.values())
        if isinstance(source, HubSource):
            assert set(entry.sha256) == {*source.files, source.archive}


def test_an_unknown_benchmark():
    with pytest.raises(UserError, match="accepted: os_interaction, web_browsing, web_shopping"):
        fetch_data.main("chess")
