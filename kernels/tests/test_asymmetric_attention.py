from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stpn_kernels import KeyValueBuffer, asymmetric_attention
from stpn_kernels.asymmetric_attention.reference import asymmetric_attention_reference


def qkv(queries: int, keys: int, width: int = 4, dtype=torch.float64) -> list[Tensor]:
    torch.manual_seed(queries * 100 + keys)
    rows = (queries, keys, keys)
    return [torch.randn(2, 3, n, width, dtype=dtype, requires_grad=True) for n in rows]


@settings(deadline=None, max_examples=30)
@given(
    template_queries=st.integers(0, 5),
    search_queries=st.integers(0, 5),
    template_keys=st.integers(1, 5),
    search_keys=st.integers(0, 5),
    scale=st.sampled_from([None, 0.1]),
)
def test_equals_one_attention_with_a_mask(
    template_queries, search_queries, template_keys, search_keys, scale
):
    inputs = qkv(template_queries + search_queries, template_keys + search_keys)
    options = {
        "num_template_queries": template_queries,
        "num_template_keys": template_keys,
        "scale": scale,
    }
    actual = asymmetric_attention(*inputs, **options)
    expected = asymmetric_attention_reference(*inputs, **options)
    torch.testing.assert_close(actual, expected)
    grads = (torch.autograd.grad(out.square().sum(), inputs) for out in (actual, expected))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_templates_do_not_see_the_search_region():
    queries, keys, values = qkv(7, 9)
    options = {"num_template_queries": 3, "num_template_keys": 4}
    before = asymmetric_attention(queries, keys, values, **options)
    with torch.no_grad():
        keys[:, :, 4:] += 1.0
        values[:, :, 4:] += 1.0
    after = asymmetric_attention(queries, keys, values, **options)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert (before[:, :, 3:] != after[:, :, 3:]).all()


def test_kept_templates_give_what_all_together_give():
    queries, keys, values = (tensor.detach() for tensor in qkv(7, 9))
    options = {"num_template_keys": 4}
    together = asymmetric_attention(queries, keys, values, num_template_queries=3, **options)
    buffer = KeyValueBuffer.allocate(4, 5, like=keys)
    buffer.write_templates(keys[:, :, :4], values[:, :, :4])
    memory = buffer.keys.data_ptr()
    for _ in range(2):  # frame after frame
        buffer.write_search(keys[:, :, 4:], values[:, :, 4:])
        search = asymmetric_attention(
            queries[:, :, 3:], buffer.keys, buffer.values, num_template_queries=0, **options
        )
        torch.testing.assert_close(search, together[:, :, 3:])
    assert buffer.keys.data_ptr() == memory


@pytest.mark.without_shape_checks
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_template_queries": 8}, r"num_template_queries must be in \[0, 7\], got 8"),
        ({"num_template_keys": -1}, r"num_template_keys must be in \[0, 9\], got -1"),
        ({"num_template_keys": 0}, "have no key to see"),
        ({"keys": torch.zeros(2, 3, 9, 5)}, "keys must have batch, heads and width"),
        ({"values": torch.zeros(2, 3, 8, 4)}, "values must have batch, heads and rows"),
        ({"queries": torch.zeros(2, 3, 7)}, "queries must have shape"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    queries, keys, values = qkv(7, 9, dtype=torch.float32)
    arguments = {
        "queries": queries,
        "keys": keys,
        "values": values,
        "num_template_queries": 3,
        "num_template_keys": 4,
    }
    with pytest.raises(ValueError, match=message):
        asymmetric_attention(**(arguments | change))


@pytest.mark.without_shape_checks
def test_writing_another_shape_is_an_error():
    _, keys, values = qkv(7, 9, dtype=torch.float32)
    buffer = KeyValueBuffer.allocate(4, 5, like=keys)
    with pytest.raises(ValueError, match=r"keys must have the shape \(2, 3, 4, 4\)"):
        buffer.write_templates(keys, values)
