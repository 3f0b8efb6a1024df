"""The least that `prompted_window_attention` can cost, from the sizes of a call."""

from __future__ import annotations

from stpn_kernels.cost import Cost


def forward_cost(
    *,
    images: int,
    height: int,
    width: int,
    window_size: int,
    num_prompts: int,
    heads: int,
    head_width: int,
    element_size: int,
) -> Cost:
    """Return what a forward has to read, write and compute.

    ``qkv`` is read and the output written, once; scores, windows and padding never touch memory.
    Two products per window: query-key, weight-value.

    Args:
        images: B.
        height: rows of the map.
        width: columns of the map.
        window_size: side w of the windows in tokens.
        num_prompts: P.
        heads: h.
        head_width: d.
        element_size: bytes of a number.
    """
    rows = images * (num_prompts + height * width) * heads * head_width
    elements = 4 * rows + _parameters(window_size, heads, head_width)
    product = _product_flops(images, height, width, window_size, num_prompts, heads * head_width)
    return Cost(element_size * elements, 2 * product)


def backward_cost(
    *,
    images: int,
    height: int,
    width: int,
    window_size: int,
    num_prompts: int,
    heads: int,
    head_width: int,
    element_size: int,
) -> Cost:
    """Return what a backward has to read, write and compute; arguments as in `forward_cost`.

    ``qkv`` and the gradient of the output are read, the gradient of ``qkv`` is written; so are
    both parameters and their gradients. Five products per window, since only inputs are saved: the
    scores again, the gradients of weights, query, key and value.
    """
    rows = images * (num_prompts + height * width) * heads * head_width
    elements = 7 * rows + 2 * _parameters(window_size, heads, head_width)
    product = _product_flops(images, height, width, window_size, num_prompts, heads * head_width)
    return Cost(element_size * elements, 5 * product)


def _parameters(window_size: int, heads: int, head_width: int) -> int:
    """Count the numbers in ``qkv_bias`` and ``bias_table``."""
    return 3 * heads * head_width + (2 * window_size - 1) ** 2 * heads


def _product_flops(
    images: int, height: int, width: int, window_size: int, num_prompts: int, channels: int
) -> int:
    """Count the operations of one product of every window, padded positions included."""
    num_windows = -(-height // window_size) * -(-width // window_size)
    return 2 * images * num_windows * (num_prompts + window_size**2) ** 2 * channels
