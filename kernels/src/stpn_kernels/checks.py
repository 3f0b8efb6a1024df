"""Input checks that the operators share. They read metadata only and trace without graph breaks."""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def check_floating(name: str, tensor: Tensor) -> None:
    """Require a floating point dtype.

    Raises:
        TypeError: the tensor holds integers, booleans or complex numbers.
    """
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be a floating point tensor, got {tensor.dtype}")


def check_rank(name: str, tensor: Tensor, axes: str) -> None:
    """Require one dimension per axis of ``axes``, such as ``"B K N C"``.

    Raises:
        ValueError: the tensor has another number of dimensions.
    """
    if tensor.dim() != len(axes.split()):
        raise ValueError(f"{name} must have shape ({axes}), got {tuple(tensor.shape)}")


def check_companion(name: str, tensor: Tensor, main_name: str, main: Tensor) -> None:
    """Require the device and dtype of the main input; beside half precision float32 is allowed.

    Under autocast activations are half precision and parameters stay float32.

    Raises:
        TypeError: the dtypes do not fit.
        ValueError: the tensors live on different devices.
    """
    float32_parameter = tensor.dtype == torch.float32 and main.dtype in _HALF
    if tensor.dtype != main.dtype and not float32_parameter:
        raise TypeError(
            f"{name} must have the dtype of {main_name}, {main.dtype}"
            f" (or float32 beside half precision), got {tensor.dtype}"
        )
    if tensor.device != main.device:
        raise ValueError(
            f"{name} must be on the device of {main_name}, {main.device}, got {tensor.device}"
        )
