"""Where a catalogue lies on disk: a small JSON file that names WebShop's raw files.

It stands beside the samples and pins every file by its SHA-256, so that samples are never played in
another catalogue than the one that they were made from. Generated files lie beside it too; real
ones stay where the user has them.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gcd.core.errors import UserError
from gcd.core.records import Record, read_records, write_records, write_text
from gcd.tasks.web_shopping.catalogue import load_products
from gcd.tasks.web_shopping.generator import generate_catalogue
from gcd.tasks.web_shopping.pages import Shop

Name = Literal["generated", "files"]
GENERATED: Name = "generated"
FILES: Name = "files"
# Raw products, or those that the engine has processed already, with the more of them first.
PRODUCT_FILES = ("items_shuffle*.json*", "products_*.json*", "documents_*.json*")
ATTRIBUTE_FILES = "items_ins_v2*.json*"
INSTRUCTION_FILES = "items_human_ins*.json*"
_log = logging.getLogger(__name__)


class StoredFile(Record):
    """A file, by its path (relative to the store's own folder, or absolute) and its SHA-256."""

    path: str
    sha256: str


class Store(Record):
    """The files of a catalogue, and the seed of the prices that are given as a range."""

    products: StoredFile
    attributes: StoredFile | None
    instructions: StoredFile | None
    price_seed: str


def store_path(folder: Path, name: Name) -> Path:
    """The file of the store GENERATED or FILES in a task's folder."""
    return folder / f"catalogue_{name}.json"


def write_generated(folder: Path, seed: str, count: int, price_seed: str) -> Shop:
    """Generate a catalogue of `count` products into `folder` and open it."""
    tables = generate_catalogue(seed, count)
    names = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")
    for name, table in zip(names, tables, strict=True):
        write_text(folder / GENERATED / name, json.dumps(table, ensure_ascii=False) + "\n")
    stored = [_pin(folder, Path(GENERATED, name)) for name in names]
    return _write_store(store_path(folder, GENERATED), stored, price_seed)


def write_real(folder: Path, data_path: str, price_seed: str) -> Shop:
    """Find WebShop's files in `data_path` and its subfolders, pin them in `folder`, open them.

    Raises:
        UserError: no products are in it, or it is not clear which.
    """
    source = Path(data_path).resolve()
    found = [path for pattern in PRODUCT_FILES if (path := _find(source, pattern))]
    if not found:
        raise UserError(
            f"{source}: expected WebShop's products ({', '.join(PRODUCT_FILES)}), found none; "
            "see `python -m stages.fetch_data`."
        )
    paths = [found[0], _find(source, ATTRIBUTE_FILES), _find(source, INSTRUCTION_FILES)]
    _log.info("catalogue: %s", ", ".join(str(path) for path in paths if path))
    stored = [None if path is None else _pin(folder, path) for path in paths]
    return _write_store(store_path(folder, FILES), stored, price_seed)


def _find(folder: Path, pattern: str) -> Path | None:
    """The one file that matches, None if there is none; raises UserError if there are several."""
    paths = sorted(folder.rglob(pattern))
    if len(paths) > 1:
        raise UserError(
            f"{folder}: expected one file {pattern}, found {len(paths)} ({paths[0]}, {paths[1]}); "
            "set data_path to a folder with one."
        )
    return paths[0] if paths else None


def _pin(folder: Path, path: Path) -> StoredFile:
    return StoredFile(path=str(path), sha256=_checksum(folder / path))


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}). Run `dvc repro prepare`.") from error


def _write_store(path: Path, stored: Sequence[StoredFile | None], price_seed: str) -> Shop:
    products, attributes, instructions = stored
    assert products is not None
    store = Store(
        products=products,
        attributes=attributes,
        instructions=instructions,
        price_seed=price_seed,
    )
    write_records(path, [store])
    return open_shop(path)


def open_shop(path: Path) -> Shop:
    """Read a store, verify its files and index its products.

    Raises:
        UserError: a file is missing, has changed, or is not of WebShop's schema.
    """
    store = read_records(path, Store)[0]
    paths: list[Path | None] = []
    for stored in (store.products, store.attributes, store.instructions):
        if stored is None:
            paths.append(None)
            continue
        file = path.parent / stored.path
        if _checksum(file) != stored.sha256:
            raise UserError(
                f"{file}: is not the file that the samples were made from. Restore it, or run "
                "`dvc repro prepare`."
            )
        paths.append(file)
    products, attributes, instructions = paths
    assert products is not None
    return Shop(load_products(products, attributes, instructions), store.price_seed)
