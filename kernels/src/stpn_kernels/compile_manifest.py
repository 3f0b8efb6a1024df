"""Every build of a Triton kernel that is checked ahead of time, and what it may use of a GPU.

Budgets are what the kernels take now, with a little room: `compile_table` says by how much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stpn_kernels.prompted_window_attention.configurations import (
    backward_configuration,
    forward_configuration,
)
from stpn_kernels.support_attend import configurations as attend
from stpn_kernels.support_pool import configurations as pool

INSTRUCTIONS = {80: "HMMA", 90: "HGMMA"}  # tensor cores' own, by compute capability


@dataclass(frozen=True)
class Build:
    """One compilation, and what it may use.

    Attributes:
        operator: folder of the kernel.
        kernel: its name.
        capability: of the GPU, times ten: 80 for an A100, 90 for an H100 or H200.
        dtype: of the activations.
        pointers: dtype of each pointer argument; None stands for that of the activations.
        constants: values of the constexpr arguments.
        num_warps: warps of a program.
        num_stages: depth of the software pipeline.
        max_registers: per thread.
        max_spill_bytes: per thread.
        max_shared_bytes: per program.
    """

    operator: str
    kernel: str
    capability: int
    dtype: str
    pointers: Mapping[str, str | None]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int
    max_registers: int
    max_spill_bytes: int
    max_shared_bytes: int

    @property
    def instruction(self) -> str | None:
        """Tensor-core instruction that the products must be made of; None in IEEE float32."""
        multiplies = self.constants.get("PRECISION") is not None
        return INSTRUCTIONS[self.capability] if multiplies and self.dtype != "float32" else None


def manifest() -> list[Build]:
    """Return all builds."""
    return [*_window_attention_builds(), *_support_pool_builds(), *_support_attend_builds()]


def _window_attention_builds() -> Iterator[Build]:
    activations = {"qkv": None, "qkv_bias": "float32", "table": "float32"}
    forward = activations | {"out": None, "prompt_sums": "float32"}
    backward = activations | {"grad_out": None, "d_qkv": None}
    backward |= dict.fromkeys(("prompt_sums", "padding_sums", "score_sums"), "float32")
    kernels = (
        ("forward_kernel", forward, forward_configuration),
        ("backward_kernel", backward, backward_configuration),
    )
    shapes = (  # head width, shift, prompts, dtype
        (32, 0, 7, "bfloat16"),
        (32, 3, 7, "bfloat16"),
        (32, 3, 0, "bfloat16"),
        (16, 3, 7, "bfloat16"),
        (64, 3, 7, "bfloat16"),
        (32, 3, 7, "float16"),
        (32, 3, 7, "float32"),
    )
    for capability in INSTRUCTIONS:
        for kernel, pointers, choose in kernels:
            for width, shift, prompts, dtype in shapes:
                configuration = choose(getattr(torch, dtype), width)
                yield Build(
                    operator="prompted_window_attention",
                    kernel=kernel,
                    capability=capability,
                    dtype=dtype,
                    pointers=pointers,
                    constants={
                        "D": width,
                        "WINDOW": 7,
                        "SHIFT": shift,
                        "PROMPTS": prompts,
                        "NEED_PROMPTS": prompts > 0,
                        "BLOCK_N": 64,
                        "PRECISION": "ieee",
                    },
                    num_warps=configuration.num_warps,
                    num_stages=configuration.num_stages,
                    max_registers=255,
                    max_spill_bytes=_allowed_spill(kernel, capability, width, dtype),
                    max_shared_bytes=64 * 1024,
                )
        yield Build(
            operator="prompted_window_attention",
            kernel="sum_groups_kernel",
            capability=capability,
            dtype="bfloat16",
            pointers={"sums": "float32", "out": None},
            constants={"BLOCK": 256},
            num_warps=4,
            num_stages=1,
            max_registers=64,
            max_spill_bytes=0,
            max_shared_bytes=0,
        )


def _allowed_spill(kernel: str, capability: int, head_width: int, dtype: str) -> int:
    """The backward holds five tiles and four sums; an A100's instructions want most of it."""
    if kernel == "forward_kernel":
        return 0
    wide = head_width == 64 or dtype == "float32"
    if capability == 80:
        return 512 if wide else 128
    return 64 if wide else 0


def _support_pool_builds() -> Iterator[Build]:
    parameters = {"support": None, "weight": "float32", "bias": "float32"}
    backward = {"grad_out": None, "d_frame": None, "weight_sums": "float32", "bias_sums": "float32"}
    kernels = (
        ("forward_kernel", parameters | {"out": None}, pool.FORWARD),
        ("backward_kernel", parameters | backward, pool.BACKWARD),
    )
    for capability in INSTRUCTIONS:
        for kernel, pointers, configuration in kernels:
            for dtype in ("bfloat16", "float32"):
                width = 768
                rows = configuration.tile_size // pool.block_width(width)
                yield Build(
                    operator="support_pool",
                    kernel=kernel,
                    capability=capability,
                    dtype=dtype,
                    pointers=pointers,
                    constants={
                        "C": width,
                        "EPS": 1e-5,
                        "ROWS": rows,
                        "BLOCK_C": pool.block_width(width),
                    },
                    num_warps=configuration.num_warps,
                    num_stages=3,  # Triton's default; these loops have no pipeline
                    max_registers=255,
                    max_spill_bytes=0,
                    max_shared_bytes=16 * 1024,
                )


def _support_attend_builds() -> Iterator[Build]:
    inputs: dict[str, str | None] = {"queries": "float32", "tokens": None}
    statistics = dict.fromkeys(("maxima", "weight_sums"), "float32")
    gradients = {"grad_out": None, **inputs, **statistics, "gradient_sums": "float32"}
    kernels = (
        ("forward_kernel", {**inputs, **statistics, "token_sums": "float32"}),
        ("statistics_kernel", gradients),
        ("query_gradient_kernel", gradients | {"query_sums": "float32"}),
        ("token_gradient_kernel", gradients | {"d_tokens": None}),
    )
    # The transformer predictor's width, and that of one without the reduction.
    shapes = ((96, "bfloat16"), (768, "bfloat16"), (96, "float32"))
    for capability in INSTRUCTIONS:
        for kernel, pointers in kernels:
            for width, dtype in shapes:
                yield _support_attend_build(capability, kernel, pointers, width, dtype)
        yield Build(
            operator="support_attend",
            kernel="merge_kernel",
            capability=capability,
            dtype="bfloat16",
            pointers={**statistics, "token_sums": "float32", "out": None},
            constants={"D": 96, "CHUNKS": 1, "MOST_SPLITS": attend.MOST_SPLITS, "BLOCK_D": 128},
            num_warps=4,
            num_stages=3,
            max_registers=128,
            max_spill_bytes=0,
            max_shared_bytes=16 * 1024,
        )


def _support_attend_build(
    capability: int, kernel: str, pointers: Mapping[str, str | None], width: int, dtype: str
) -> Build:
    with_gradients = kernel.endswith("gradient_kernel")
    constants: dict[str, Any] = {"D": width}
    constants |= attend.tile_sizes(56, width, getattr(torch, dtype))  # 7 prompts, 8 heads
    constants["CHUNKS"] = -(-width // constants["BLOCK_D"])
    constants["PRECISION"] = "ieee"
    if with_gradients:
        constants["MOST_STATISTICS"] = attend.MOST_STATISTICS
    if kernel == "token_gradient_kernel":
        constants["BLOCK_Q"] = attend.MOST_QUERIES_OF_TOKENS
    options = attend.launch_options(
        getattr(torch, dtype), constants["CHUNKS"], with_gradients=with_gradients
    )
    return Build(
        operator="support_attend",
        kernel=kernel,
        capability=capability,
        dtype=dtype,
        pointers=pointers,
        constants=constants,
        num_warps=options["num_warps"],
        num_stages=options["num_stages"],
        max_registers=255,
        max_spill_bytes=32,
        max_shared_bytes=160 * 1024,
    )
