"""The kernels compile for GPUs that are not here, and take of them what the manifest allows."""

import json
from pathlib import Path

import pytest

from stpn_kernels.backend import INSTALLED, INTERPRETED

if not INSTALLED or INTERPRETED:
    pytest.skip(
        "needs Triton, and not its interpreter, whose kernels can't be compiled",
        allow_module_level=True,
    )

import triton

from stpn_kernels.compile_manifest import Build, manifest
from stpn_kernels.compile_table import compile_build, row

pytestmark = pytest.mark.compile
TABLE = Path(__file__).parents[1] / "compile_table.json"
COMMAND = "python -m stpn_kernels.compile_table --write kernels/compile_table.json"


def name_of(build: Build) -> str:
    constants = "-".join(str(value) for value in build.constants.values())
    return f"sm_{build.capability}-{build.operator}-{build.kernel}-{build.dtype}-{constants}"


@pytest.mark.parametrize("build", manifest(), ids=name_of)
def test_kernel_takes_what_it_may_and_multiplies_on_tensor_cores(build):
    usage = compile_build(build)
    assert usage.registers <= build.max_registers
    assert usage.spill_bytes <= build.max_spill_bytes
    assert usage.shared_bytes <= build.max_shared_bytes
    assert (usage.tensor_core_instructions > 0) == (build.instruction is not None)
    committed = json.loads(TABLE.read_text())
    if committed["triton"] == triton.__version__:  # others allot registers a little differently
        assert json.loads(json.dumps(row(build, usage))) in committed["rows"], (
            f"{TABLE.name} does not have this row; make it anew: {COMMAND}"
        )


def test_the_committed_table_has_the_manifest_and_nothing_else():
    expected = [name_of(build) for build in manifest()]
    rows = json.loads(TABLE.read_text())["rows"]
    committed = [
        f"sm_{r['capability']}-{r['operator']}-{r['kernel']}-{r['dtype']}-"
        + "-".join(str(value) for value in r["constants"].values())
        for r in rows
    ]
    assert committed == expected
