"""The least that `support_pool` can cost, from the sizes of a call."""

from __future__ import annotations

from stpn_kernels.cost import Cost

# Per token and channel: centre, square, add up twice, scale, and multiply and add the parameters.
NORM_FLOPS = 7


def forward_cost(
    *, clips: int, support_frames: int, tokens: int, channels: int, element_size: int
) -> Cost:
    """Return what a forward has to read, write and compute.

    Every support frame is read once, one frame is written. The operations are no matrix products;
    they never decide about the time.

    Args:
        clips: B.
        support_frames: K.
        tokens: N of a frame.
        channels: C.
        element_size: bytes of a number.
    """
    frame = clips * tokens * channels
    elements = (support_frames + 1) * frame + 2 * channels
    return Cost(element_size * elements, (support_frames + NORM_FLOPS) * frame)


def backward_cost(
    *, clips: int, support_frames: int, tokens: int, channels: int, element_size: int
) -> Cost:
    """Return what a backward has to read, write and compute; arguments as in `forward_cost`.

    Only inputs are saved, so the support frames are read again, beside the gradient of the output;
    the gradient of one frame is written, which is that of all.
    """
    frame = clips * tokens * channels
    elements = (support_frames + 2) * frame + 4 * channels
    return Cost(element_size * elements, (support_frames + 3 * NORM_FLOPS) * frame)
