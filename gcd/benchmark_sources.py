"""The benchmarks' own data: where it lies, at which revision, under which licence; how to fetch it.

A file is what it should be if its checksum says so. In a git repository the commit is one over all
files: git takes no object whose content does not hash to its name, so nothing there can change
behind the pinned commit. Files of the model hub have a SHA-256 each, and so have those of git of
which we have it. WebShop's full catalogue is not here: of its copies (Google Drive) no checksum is
known.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from gcd.core.errors import UserError

RAW = Path("data/raw")


@dataclass(frozen=True)
class GitSource:
    """Files and folders of a repository (`paths`: there → here) at a commit."""

    address: str
    commit: str
    paths: dict[str, str]


@dataclass(frozen=True)
class HubSource:
    """Files of a data set on the model hub. Of an archive, only the folder `unpack` is kept."""

    id: str
    revision: str
    files: list[str]
    archive: str
    password: bytes  # published by the authors: it keeps crawlers out
    unpack: str


@dataclass(frozen=True)
class Benchmark:
    """What `fetch` brings for a task; `sha256` is by fetched file."""

    name: str
    licence: str
    source: GitSource | HubSource
    sha256: dict[str, str] = field(default_factory=dict)


_OS_DATA = "data/os_interaction/data"
_WEBSHOP_DATA = "agentenv-webshop/webshop/data"
BENCHMARKS = {
    "os_interaction": Benchmark(
        name="AgentBench v0.2, OS interaction: 26 dev and 144 std samples",
        licence="Apache-2.0",
        source=GitSource(
            address="https://github.com/THUDM/AgentBench",
            commit="41e6807349f741e06428fae3e9e4d334e7002362",
            paths={
                "LICENSE": "LICENSE",
                f"{_OS_DATA}/dev.json": "dev.json",
                # The std split: configs/tasks/os.yaml. Other files lie beside it.
                f"{_OS_DATA}/1/stock.json": "std/1/stock.json",
                f"{_OS_DATA}/2/environment.json": "std/2/environment.json",
                f"{_OS_DATA}/3/ac.json": "std/3/ac.json",
                f"{_OS_DATA}/4": "std/4",
                f"{_OS_DATA}/5/new.json": "std/5/new.json",
                f"{_OS_DATA}/6/new.json": "std/6/new.json",
                f"{_OS_DATA}/7/bootstrap.json": "std/7/bootstrap.json",
                "data/os_interaction/scripts": "scripts",
                "data/os_interaction/res/dockerfiles": "dockerfiles",
            },
        ),
        sha256={
            "dev.json": "c5554248e6c1cb606e27d2f81025b751a490c9a5ccd37aabf4c86879a52e9274",
            "std/1/stock.json": "e52d47b06201d9cad170f446429cc384541a5344fbed1cf478d99cd357508040",
            "std/4/N41.json": "eb179d6da5e905031a2fe3f2709ee5c3673f8066f484ba4d8e69952891ab165e",
        },
    ),
    "web_browsing": Benchmark(
        name="Mind2Web, the cross-website test set: 177 tasks, 0.8 GB to download",
        licence="CC BY 4.0; its authors ask that the unpacked test set is not published",
        source=HubSource(
            id="osunlp/Mind2Web",
            revision="17ece8eb89862368edc0cc806acee6fca5163474",
            files=["scores_all_data.pkl"],
            archive="test.zip",
            password=b"mind2web",
            unpack="test_website",
        ),
        sha256={
            "scores_all_data.pkl": (
                "884c97cd9ae0544485d21ea39e0d46422aee0291969a7324e56df3a84466dbd7"
            ),
            "test.zip": "8f5fbe72afab942fe97cdf7fb397e179885d89b5c16862288e9a14bc6d41ca89",
        },
    ),
    "web_shopping": Benchmark(
        name="WebShop, the small set: 1,000 products",
        licence="MIT (AgentGym, WebShop); the products' texts were scraped from a shop",
        source=GitSource(
            address="https://github.com/WooooDyy/AgentGym",
            commit="3ef9235d23e68e7c2920c5422ad957dc8ced5c6c",
            paths={
                "LICENSE": "LICENSE",
                f"{_WEBSHOP_DATA}/items_shuffle_1000.json": "items_shuffle_1000.json",
                f"{_WEBSHOP_DATA}/items_ins_v2_1000.json": "items_ins_v2_1000.json",
                f"{_WEBSHOP_DATA}/items_human_ins.json": "items_human_ins.json",
            },
        ),
        sha256={
            "items_ins_v2_1000.json": (
                "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f"
            ),
        },
    ),
}


def fetch(task: str, benchmark: Benchmark) -> None:
    """Fill data/raw/<task>/, whole or not at all; says the licence before, the param after.

    Raises:
        UserError: no network, no such revision or file, or a checksum differs.
    """
    out = RAW / task
    if out.exists():
        logging.info("%s is there already; delete it to fetch it again.", out)
    else:
        source = benchmark.source
        logging.info("%s. Licence: %s.", benchmark.name, benchmark.licence)
        new = out.with_name(out.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            if isinstance(source, GitSource):
                _fetch_git(source, new, benchmark.sha256)
            else:
                _fetch_hub(source, new, benchmark.sha256)
            new.replace(out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    logging.info("To use it: dvc exp run -S tasks.%s.data=files", task)


def _require_checksum(path: Path, expected: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{path.name}: SHA-256 is {found}, expected {expected}. It is damaged or not the "
            "pinned revision; nothing was kept. Try again."
        )


def _git(folder: Path, *arguments: str) -> None:
    """Run git in `folder`; raises UserError with the last line that it says."""
    # No question for a password, and files as they are.
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", *arguments]
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(f"git {arguments[0]}: {(lines or ['failed'])[-1][:300]}")


def _fetch_git(source: GitSource, out: Path, sha256: dict[str, str]) -> None:
    """Get the paths' content of one commit, without history and without the rest."""
    clone = out / ".clone"
    clone.mkdir()
    logging.info("Fetching from %s, commit %s.", source.address, source.commit)
    try:
        _git(clone, "init", "--quiet")
        _git(clone, "remote", "add", "origin", source.address)
        _git(clone, "sparse-checkout", "set", "--no-cone", *(f"/{path}" for path in source.paths))
        _git(clone, "fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", source.commit)
        _git(clone, "checkout", "--quiet", source.commit)
    except FileNotFoundError as error:
        raise UserError("git is needed to fetch this; install it.") from error
    except UserError as error:
        raise UserError(
            f"{source.address} cannot be fetched: {error}. Check the network."
        ) from error
    for there, here in source.paths.items():
        if not (clone / there).exists():
            raise UserError(f"{source.address}: commit {source.commit} holds no {there}.")
        (out / here).parent.mkdir(parents=True, exist_ok=True)
        (clone / there).rename(out / here)
    shutil.rmtree(clone)
    for name, expected in sha256.items():
        _require_checksum(out / name, expected)


def _fetch_hub(source: HubSource, out: Path, sha256: dict[str, str]) -> None:
    """Download the files, check them, and unpack what is wanted of the archive."""
    from huggingface_hub import hf_hub_download

    # It says every failed try, twice; the last one is told below.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    for name in [*source.files, source.archive]:
        logging.info("Downloading %s of %s, revision %s.", name, source.id, source.revision)
        try:
            hf_hub_download(
                source.id, name, repo_type="dataset", revision=source.revision, local_dir=out
            )
        except Exception as error:  # requests, hub and OS errors share no base class
            raise UserError(
                f"The hub's data set {source.id} cannot be downloaded: "
                f"{' '.join(str(error).split())[:300]} Check the network."
            ) from error
        _require_checksum(out / name, sha256[name])
    folder = out / source.unpack
    folder.mkdir()
    with zipfile.ZipFile(out / source.archive) as archive:
        archive.setpassword(source.password)
        for member in archive.infolist():
            path = Path(member.filename)
            if path.suffix == ".json" and source.unpack in path.parent.name:
                with archive.open(member) as packed, (folder / path.name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    if not any(folder.iterdir()):
        raise UserError(f"{source.archive} of {source.id} holds no {source.unpack}/*.json.")
    (out / source.archive).unlink()
    shutil.rmtree(out / ".cache", ignore_errors=True)
