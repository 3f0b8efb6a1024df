"""Compile the Triton kernels ahead of time, without a GPU, and say what they use of one.

    python -m stpn_kernels.compile_table [--write kernels/compile_table.json]

`compile_manifest` lists the builds, with the registers, shared memory and spills that each may take
and the tensor-core instruction that it must contain. The table of what they do take is committed,
so that a change to a kernel shows as a difference of it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stpn_kernels.compile_manifest import INSTRUCTIONS, Build, manifest

TRITON_TYPES = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}


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
    # As torch allocates tensors: without it the compiler loads element by element.
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name in build.pointers or name.startswith("stride")
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
    if arguments.write and not arguments.write.parent.is_dir():
        parser.error(f"{arguments.write.parent} is not a folder")  # before a minute of work
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
