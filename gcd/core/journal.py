"""Replies that a stage has already generated, so that a killed one continues instead of repeating.

One line a batch (to a server: a request): the hash of everything it depends on, and its replies.
A stage that runs again asks for the same batches and finds them here.
"""

import hashlib
import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gcd.core.interfaces import Reply


class Journal:
    """Append-only store of generated batches in `path`. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: dict[str, list[Reply]] = {}
        self._lock = threading.Lock()
        if path.exists():
            self._read()

    def _read(self) -> None:
        """Load what is whole; what a kill or a power cut left after it is cut off."""
        whole = 0
        for line in self.path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                self._batches[entry["key"]] = [Reply(**reply) for reply in entry["replies"]]
            except (ValueError, KeyError, TypeError):
                break
            whole += len(line)
        os.truncate(self.path, whole)

    @staticmethod
    def key(*parts: Any) -> str:
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def get(self, key: str) -> list[Reply] | None:
        return self._batches.get(key)

    def put(self, key: str, replies: list[Reply]) -> None:
        """Store a batch; it is on disk when this returns."""
        line = json.dumps({"key": key, "replies": [asdict(reply) for reply in replies]})
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            self._batches[key] = replies
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
