"""Compile the Triton kernels ahead of time, without a GPU, and say what they use of one.

    python -m stpn_kernels.compile_table [--write kernels/compile_table.json]

`MANIFEST` is the list of builds: each with the registers, shared memory and spills it may take and
the tensor-core instruction it must contain. The table of what they do take is committed, so that a
change to a kernel shows as a difference of it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from stpn_kernels.prompted_window_attention.configurations import (
    backward_configuration,
    forward_configuration,
)

TRITON_TYPES = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
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


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes.

    Attributes:
        registers: per thread.
        spill_bytes: per thread, of registers that did not suffice.
        shared_bytes: per program.
        tensor_core_instructions: how many there are.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_core_instructions: int


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


def manifest() -> list[Build]:
    """Return all builds."""
    return list(_window_attention_builds())


def compile_build(build: Build) -> Usage:
    """Compile a kernel for its GPU and read what the machine code takes.

    Raises:
        RuntimeError: in the interpreter, which kernels imported into can't be compiled.
    """
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f"stpn_kernels.{build.operator}.kernel")
    kernel = getattr(module, build.kernel)
    if not isinstance(kernel, triton.JITFunction):
        raise RuntimeError("kernels that were imported for the interpreter can't be compiled")
    signature = {name: _type(build, name) for name in kernel.arg_names}
    # As torch allocates: without it the compiler loads element by element.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name in build.pointers
    }
    compiled = triton.compile(
        ASTSource(kernel, signature, dict(build.constants), aligned),
        target=GPUTarget("cuda", build.capability, 32),
        options={
            "num_warps": build.num_warps,
            "num_stages": build.num_stages,
            "enable_fp_fusion": True,
        },
    )
    cubin = compiled.asm["cubin"]
    usage = re.search(r"REG:(\d+) STACK:(\d+)", _dump(cubin, "-res-usage"))
    assert usage is not None, "cuobjdump names no registers"
    instruction = INSTRUCTIONS[build.capability]
    return Usage(
        registers=int(usage[1]),
        spill_bytes=int(usage[2]),
        shared_bytes=int(compiled.metadata.shared),
        tensor_core_instructions=len(re.findall(rf"\b{instruction}\.", _dump(cubin, "-sass"))),
    )


def row(build: Build, usage: Usage) -> dict[str, Any]:
    """Return a line of the table."""
    made = asdict(build)
    del made["pointers"]
    return made | {"instruction": build.instruction} | asdict(usage)


def _type(build: Build, argument: str) -> str:
    if argument in build.constants:
        return "constexpr"
    if argument in build.pointers:
        return TRITON_TYPES[build.pointers[argument] or build.dtype]
    return "fp32" if argument == "eps" else "i32"


def _dump(cubin: bytes, option: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print the table, and write it where told."""
    import triton

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as json")
    arguments = parser.parse_args()
    rows = []
    for build in manifest():
        usage = compile_build(build)
        rows.append(row(build, usage))
        constants = " ".join(f"{name}={value}" for name, value in build.constants.items())
        print(  # noqa: T201
            f"sm_{build.capability} {build.kernel:16s} {build.dtype:8s} {build.num_warps} warps:"
            f" {usage.registers:3d} registers, {usage.spill_bytes:4d} spilled,"
            f" {usage.shared_bytes:6d} shared, {usage.tensor_core_instructions:3d}"
            f" {INSTRUCTIONS[build.capability]}; {constants}",
            flush=True,
        )
    if arguments.write:
        table = {"triton": triton.__version__, "rows": rows}
        arguments.write.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
