"""Window attention of a Swin layer in which every window also sees the prompts of its image."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from stpn_kernels.backend import Backend, use_triton
from stpn_kernels.checks import check_companion, check_floating, check_rank
from stpn_kernels.prompted_window_attention.op import prompted_window_attention_op
from stpn_kernels.prompted_window_attention.triton_op import (
    prompted_window_attention_triton_op,
    why_not,
)

__all__ = ["prompted_window_attention", "why_not"]


def prompted_window_attention(
    qkv: Float[Tensor, "B X 3 h d"],
    qkv_bias: Float[Tensor, "3 h d"],
    bias_table: Float[Tensor, "R h"],
    *,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
    need_prompts: bool = True,
    backend: Backend = "auto",
) -> Float[Tensor, "B X h*d"]:
    """Attend within (shifted) windows, with the prompts of the image prepended to each window.

    The sequence holds the ``P`` prompts first, then the ``H * W`` tokens of the map row by row,
    neither windowed nor padded. The map is padded at the bottom and right to whole windows and
    *then* rolled by ``-shift``, as detection Swins do. Each window attends over its prompts and its
    ``w * w`` positions with scale ``d ** -0.5``. Scores of token pairs get the relative position
    bias, and -100 where the roll brought different regions together (also when the map is one
    window); scores with a prompt get neither. Padded positions are not masked: their tokens are
    zeros before the projection, so their key and value are its bias, which therefore receives a
    gradient here.

    The output rows of the prompts are averaged over all windows of the same image (the released
    code mixes the images of a batch there; ours equals batches of one). The mean may be taken here,
    before the output projection, because that projection is linear.

    Half precision inputs are computed in float32; Triton multiplies them as they are, adds up in
    float32, and reads the key and value of padded positions in the dtype of ``qkv``. Differentiable
    once, by recomputation: only the inputs are saved.

    Args:
        qkv: projected sequence (B, X, 3, h, d) with X = num_prompts + height * width.
        qkv_bias: bias of that projection (3, h, d): query, key, value; zeros if it has none.
        bias_table: relative position bias ((2 * window_size - 1) ** 2, h), in the row order of timm
            and Microsoft's Swin.
        height: rows of the map.
        width: columns of the map.
        window_size: side w of the windows in tokens.
        shift: cyclic shift in tokens, 0 <= shift < window_size.
        num_prompts: number of prompts P of each image, possibly 0.
        need_prompts: False writes zeros to the prompt rows, for layers whose prompt output is
            discarded.
        backend: ``"reference"``, plain PyTorch on every device; ``"triton"``, an error where
            `why_not` has reasons; ``"auto"``, which takes what the committed measurements say is
            faster.

    Returns:
        Attention output (B, X, h * d) in the dtype of ``qkv``, before the output projection.

    Raises:
        TypeError: a dtype is not floating point or does not fit that of ``qkv``.
        ValueError: a shape, device, or integer argument does not fit the others, ``backend`` is
            unknown, or Triton is asked for and can't run the call.
    """
    _check_tensors(qkv, qkv_bias, bias_table)
    _check_layout(qkv, bias_table, height, width, window_size, shift, num_prompts)
    reasons = why_not(qkv, window_size=window_size, num_prompts=num_prompts)
    triton = use_triton(backend, "prompted_window_attention", reasons, qkv)
    op = prompted_window_attention_triton_op if triton else prompted_window_attention_op
    out: Tensor = op(
        qkv,
        qkv_bias,
        bias_table,
        height,
        width,
        window_size,
        shift,
        num_prompts,
        need_prompts,
    )
    return out


def _check_tensors(qkv: Tensor, qkv_bias: Tensor, bias_table: Tensor) -> None:
    check_floating("qkv", qkv)
    check_rank("qkv", qkv, "B X 3 h d")
    if qkv.shape[2] != 3:
        raise ValueError(f"qkv must have shape (B X 3 h d), got {tuple(qkv.shape)}")
    check_rank("qkv_bias", qkv_bias, "3 h d")
    check_rank("bias_table", bias_table, "R h")
    check_companion("qkv_bias", qkv_bias, "qkv", qkv)
    check_companion("bias_table", bias_table, "qkv", qkv)
    if qkv_bias.shape != qkv.shape[2:]:
        raise ValueError(
            f"qkv_bias must have the shape (3, h, d) = {tuple(qkv.shape[2:])} of qkv's last"
            f" dimensions, got {tuple(qkv_bias.shape)}"
        )


def _check_layout(
    qkv: Tensor,
    bias_table: Tensor,
    height: int,
    width: int,
    window_size: int,
    shift: int,
    num_prompts: int,
) -> None:
    for name, value in (("height", height), ("width", width), ("window_size", window_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if num_prompts < 0:
        raise ValueError(f"num_prompts must be at least 0, got {num_prompts}")
    if not 0 <= shift < window_size:
        raise ValueError(f"shift must be in [0, window_size) = [0, {window_size}), got {shift}")
    if qkv.shape[1] != num_prompts + height * width:
        raise ValueError(
            f"qkv must hold num_prompts + height * width = {num_prompts} + {height} * {width}"
            f" rows, got {qkv.shape[1]}"
        )
    expected = ((2 * window_size - 1) ** 2, qkv.shape[3])
    if bias_table.shape[0] != expected[0] or bias_table.shape[1] != expected[1]:
        raise ValueError(
            f"bias_table must have shape ((2 * window_size - 1) ** 2, h) = {expected},"
            f" got {tuple(bias_table.shape)}"
        )
