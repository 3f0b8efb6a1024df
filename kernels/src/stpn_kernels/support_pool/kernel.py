"""Triton kernels of `support_pool`: the support frames are read once, where they lie.

A tile is some tokens of one image in their full width. It is added up over the frames in float32
and normalised before it is written, so that no mean is ever stored; the backward adds up again.
"""

import triton
import triton.language as tl

# One compilation serves all sizes. Strides are specialised as Triton does by default, or rows of a
# multiple of 16 numbers could not be read 16 bytes at a time.
SIZES = ("num_frames", "num_tokens", "num_tiles", "tiles_per_program")


@triton.jit
def _tile(tile, num_tokens, C: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return image, tokens, channels of a tile, and which of its numbers there are."""
    tiles = tl.cdiv(num_tokens, ROWS)  # of an image
    image = tl.cast(tile // tiles, tl.int64)
    token = (tile % tiles * ROWS + tl.arange(0, ROWS))[:, None]
    channel = tl.arange(0, BLOCK_C)[None, :]
    return image, token.to(tl.int64), channel, (token < num_tokens) & (channel < C)


@triton.jit
def _normalised_mean(
    place,
    offset,
    live,
    stride_k,
    num_frames,
    C: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Return the mean over the frames, normalised, and its reciprocal standard deviation."""
    total = tl.zeros((ROWS, BLOCK_C), tl.float32)
    for _ in tl.range(0, num_frames, loop_unroll_factor=2):  # two frames' loads in flight
        total += tl.load(place + offset, mask=live, other=0.0).to(tl.float32)
        place += stride_k
    pooled = total / num_frames
    centred = tl.where(live, pooled - tl.sum(pooled, 1)[:, None] / C, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 1)[:, None] / C + EPS)
    return tl.where(live, centred * rstd, 0.0), rstd


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    support,  # (B, K, N, C)
    weight,  # (C,)
    bias,  # (C,)
    out,  # (B, N, C)
    stride_b,
    stride_k,
    stride_n,
    num_frames,
    num_tokens,
    C: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Pool and normalise one tile."""
    image, token, channel, live = _tile(tl.program_id(0), num_tokens, C, ROWS, BLOCK_C)
    place, offset = support + image * stride_b, token * stride_n + channel
    normalised, _ = _normalised_mean(
        place, offset, live, stride_k, num_frames, C, EPS, ROWS, BLOCK_C
    )
    w = tl.load(weight + channel, mask=channel < C, other=0.0).to(tl.float32)
    b = tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)
    target = out + image * num_tokens * C + token * C + channel
    tl.store(target, (normalised * w + b).to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=SIZES)
def backward_kernel(
    grad_out,  # (B, N, C)
    support,  # (B, K, N, C)
    weight,  # (C,)
    d_frame,  # (B, N, C): the gradient of one frame, the same for all
    weight_sums,  # (programs, C) float32
    bias_sums,  # (programs, C) float32
    stride_b,
    stride_k,
    stride_n,
    num_frames,
    num_tokens,
    num_tiles,
    tiles_per_program,
    C: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Take the gradient of each tile of a program back; sum those of weight and bias over them."""
    channels = tl.arange(0, BLOCK_C)
    w = tl.load(weight + channels, mask=channels < C, other=0.0).to(tl.float32)
    weight_sum = tl.zeros((BLOCK_C,), tl.float32)
    bias_sum = tl.zeros((BLOCK_C,), tl.float32)
    first = tl.program_id(0) * tiles_per_program
    end = min(first + tiles_per_program, num_tiles)
    for tile in tl.range(first, end, disable_licm=True):
        image, token, channel, live = _tile(tile, num_tokens, C, ROWS, BLOCK_C)
        place, offset = support + image * stride_b, token * stride_n + channel
        normalised, rstd = _normalised_mean(
            place, offset, live, stride_k, num_frames, C, EPS, ROWS, BLOCK_C
        )
        position = image * num_tokens * C + token * C + channel
        d_out = tl.load(grad_out + position, mask=live, other=0.0).to(tl.float32)
        weight_sum += tl.sum(d_out * normalised, 0)
        bias_sum += tl.sum(d_out, 0)
        d_normalised = d_out * w[None, :]
        along = tl.sum(d_normalised * normalised, 1)[:, None] / C
        level = tl.sum(d_normalised, 1)[:, None] / C
        d_pooled = (d_normalised - normalised * along - level) * rstd
        tl.store(
            d_frame + position, (d_pooled / num_frames).to(d_frame.dtype.element_ty), mask=live
        )
    sums = tl.program_id(0) * C + channels
    tl.store(weight_sums + sums, weight_sum, mask=channels < C)
    tl.store(bias_sums + sums, bias_sum, mask=channels < C)
