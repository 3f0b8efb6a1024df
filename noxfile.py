"""The jobs of this repository: ``nox -l`` lists them, ``nox`` runs lint, types, tests, shapes.

All sessions share one environment, because torch alone takes 6 GB. It is installed once, and
again when what it is made from changes.
"""

import hashlib
import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "shapes"]

# In the order of their dependencies; the only list of packages in Python.
PACKAGES = (
    "kernels",
    "packages/stpn-core",
    "packages/stpn-backbones",
    "packages/stpn-data",
    "packages/stpn-tasks",
)
SOURCES = [f"{package}/src" for package in PACKAGES]
TOOLS = "requirements-dev.txt"
# One thread per test process: two processes on two cores, and the same sums everywhere.
TEST_ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

ENVIRONMENT = Path(".nox", "stpn")
TOOL_FOLDER = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")

# nox would make an environment per session; these run in the one that `install` makes.
shared = {"venv_backend": "none"}


def install(session: nox.Session) -> None:
    inputs = [Path(TOOLS), *(Path(package, "pyproject.toml") for package in PACKAGES)]
    made_from = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    stamp = ENVIRONMENT / "made-from.txt"
    if stamp.exists() and stamp.read_text() == made_from:
        session.log("environment is up to date")
        return
    session.run(sys.executable, "-m", "venv", str(ENVIRONMENT), external=True)
    run(session, "python", "-m", "pip", "install", "-r", TOOLS)
    stamp.write_text(made_from)


def run(
    session: nox.Session, tool: str, *arguments: str, env: dict[str, str] | None = None
) -> None:
    session.run(str((TOOL_FOLDER / tool).absolute()), *arguments, env=env, external=True)


@nox.session(**shared)
def lint(session: nox.Session) -> None:
    """Check style, formatting and the direction of imports."""
    install(session)
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "lint-imports")


@nox.session(**shared)
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    install(session)
    run(session, "mypy", *SOURCES)


@nox.session(**shared)
def tests(session: nox.Session) -> None:
    """Run the tests of all packages; arguments go to pytest (``-- -m slow`` for the slow ones)."""
    install(session)
    arguments = session.posargs or ["-m", "not slow and not gpu"]
    run(session, "pytest", "-n", "auto", *arguments, env=TEST_ENV)


@nox.session(**shared)
def shapes(session: nox.Session) -> None:
    """Run the tests with every annotated shape and dtype checked at run time."""
    install(session)
    packages = "stpn_kernels,stpn_core,stpn_backbones,stpn_tasks"
    skipped = "not slow and not gpu and not compile and not without_shape_checks"
    run(
        session,
        "pytest",
        *("-n", "auto", "-m", skipped, f"--jaxtyping-packages={packages},beartype.beartype"),
        *session.posargs,
        env=TEST_ENV,
    )


@nox.session(**shared)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device."""
    install(session)
    run(session, "pytest", "-m", "gpu", *session.posargs)


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize("package", PACKAGES)
def alone(session: nox.Session, package: str) -> None:
    """Test one package with only what it declares installed (downloads torch per package)."""
    needed = [f"./{path}" for path in PACKAGES[: PACKAGES.index(package) + 1]]
    if package == "packages/stpn-data":
        needed = [f"./{package}", "./kernels"]  # the tests share helpers of stpn_kernels.testing
    session.install(*needed, "pytest", "hypothesis")
    session.run("pytest", "-m", "not slow and not gpu", package, env=TEST_ENV)


@nox.session(**shared)
def demo(session: nox.Session) -> None:
    """Run ``stpn demo``; arguments go to it (``-- --help``)."""
    install(session)
    run(session, "stpn", "demo", *session.posargs)


@nox.session(**shared)
def bench(session: nox.Session) -> None:
    """Time the operators and the backbones against named peers, in one run each."""
    install(session)
    run(session, "python", "kernels/benchmarks/bench_operators.py", *session.posargs)
    run(session, "python", "benchmarks/bench_backbones.py", *session.posargs)


@nox.session(**shared)
def wheels(session: nox.Session) -> None:
    """Build the wheels of all packages into ``wheels/``."""
    install(session)
    output = Path("wheels")
    os.makedirs(output, exist_ok=True)
    projects = [f"./{package}" for package in PACKAGES]
    run(session, "python", "-m", "pip", "wheel", "--no-deps", "-w", str(output), *projects)
