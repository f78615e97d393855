"""A cache with room to grow holds what transformers' own holds, row for row and bit for bit."""

import torch
from transformers.cache_utils import DynamicLayer

from gcd.core.roomy_cache import RoomyLayer, new_cache


def states(rows, tokens):
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


def test_it_grows_and_drops_rows_as_the_plain_layer_does():
    torch.manual_seed(0)
    plain, roomy = DynamicLayer(), RoomyLayer()
    for tokens in (5, 1, 1, 200, 1):  # 200: more than the spare room
        new = states(3, tokens)
        for expected, ours in zip(plain.update(*new), roomy.update(*new), strict=True):
            assert torch.equal(ours, expected)
    for layer in (plain, roomy):
        layer.batch_select_indices(torch.tensor([2, 0]))
    assert roomy.get_seq_length() == 208
    for tokens in [1] * 80:
        new = states(2, tokens)
        for expected, ours in zip(plain.update(*new), roomy.update(*new), strict=True):
            assert torch.equal(ours, expected)


def test_a_token_is_written_in_place():
    layer = RoomyLayer()
    before = layer.update(*states(2, 5))[0].data_ptr()
    assert layer.update(*states(2, 1))[0].data_ptr() == before


def test_every_layer_of_the_model_has_room(model):
    layers = new_cache(model.config).layers
    assert len(layers) == model.config.num_hidden_layers
    assert all(type(layer) is RoomyLayer for layer in layers)
