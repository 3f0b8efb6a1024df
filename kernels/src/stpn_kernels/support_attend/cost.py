"""The least that `support_attend` can cost, from the sizes of a call."""

from __future__ import annotations

from stpn_kernels.cost import Cost


def forward_cost(
    *,
    clips: int,
    support_frames: int,
    tokens: int,
    channels: int,
    num_prompts: int,
    heads: int,
    element_size: int,
) -> Cost:
    """Return what a forward has to read, write and compute.

    Tokens and queries are read, the sums are written; scores never touch memory. Two products:
    query-token, weight-token.

    Args:
        clips: B.
        support_frames: K.
        tokens: N of a frame.
        channels: D.
        num_prompts: P.
        heads: h.
        element_size: bytes of a number.
    """
    read = clips * support_frames * tokens * channels
    queries = num_prompts * heads * channels
    elements = read + queries + clips * queries
    return Cost(element_size * elements, 4 * queries * clips * support_frames * tokens)


def backward_cost(
    *,
    clips: int,
    support_frames: int,
    tokens: int,
    channels: int,
    num_prompts: int,
    heads: int,
    element_size: int,
) -> Cost:
    """Return what a backward has to read, write and compute; arguments as in `forward_cost`.

    Tokens, queries and the gradient of the sums are read, the gradients of tokens and queries
    written. Five products, since only inputs are saved: the scores again, the gradients of the
    weights and queries, and two for the tokens.
    """
    read = clips * support_frames * tokens * channels
    queries = num_prompts * heads * channels
    elements = 2 * read + (2 + clips) * queries
    return Cost(element_size * elements, 10 * queries * clips * support_frames * tokens)
