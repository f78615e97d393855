"""Keys and values that grow without being copied at every token."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Tokens of spare room. `DynamicLayer` copies everything at every token: 16 conversations of 1,000
# tokens of the default model are 0.7 GB, and 96 tokens later 70 GB were copied.
_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """`DynamicLayer` whose tensors are views of longer ones: a token is written in place."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [B, K, L, d] to both; returns all keys and all values, each [B, K, S + L, d]."""
        batch, heads, added, size = key_states.shape
        before = int(self.get_seq_length())
        after = before + added
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self._whole or after > self._whole[0].shape[2]:
            whole = [key_states.new_zeros(batch, heads, after + _ROOM, size) for _ in range(2)]
            if before:
                whole[0][:, :, :before] = self.keys
                whole[1][:, :, :before] = self.values
            self._whole = whole
        for tensor, states in zip(self._whole, (key_states, value_states), strict=True):
            tensor[:, :, before:after] = states
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only keep these rows of the batch."""
        length = self.get_seq_length()
        self._whole = [tensor[indices] for tensor in self._whole]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (tensor[:, :, :length] for tensor in self._whole)


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; layers of other kinds (sliding windows) stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
