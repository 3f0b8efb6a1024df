"""The jobs of this repository: ``nox -l`` lists them, ``nox`` runs lint, types, tests,
interpreter, shapes.

Most sessions share one environment, because torch alone takes 6 GB. It is installed once, and
again when what it is made from changes. Those that need another one (``alone``, ``ends``,
``installed``) have it made by uv, which links files from its cache: ``pip install nox uv``. Without
uv all but ``ends`` do, slowly.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "interpreter", "shapes"]

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
# What runs Triton kernels: on a GPU (session gpu), or in the interpreter.
TRITON_TESTS = ["kernels/tests/interpreter", "packages/stpn-backbones/tests/test_triton.py"]

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
        "--ignore=packages/stpn-backbones/README.md",  # exports, which the hook breaks like compile
        *session.posargs,
        env=TEST_ENV,
    )


@nox.session(**shared)
def interpreter(session: nox.Session) -> None:
    """Run the Triton kernels on the CPU, in Triton's interpreter."""
    install(session)
    arguments = session.posargs or ["-m", "not slow and not gpu", *TRITON_TESTS]
    env = TEST_ENV | {"TRITON_INTERPRET": "1"}
    run(session, "pytest", "-n", "auto", *arguments, env=env)


@nox.session(**shared)
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device."""
    install(session)
    run(session, "pytest", "-m", "gpu", *session.posargs)


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize("package", PACKAGES)
def alone(session: nox.Session, package: str) -> None:
    """Test one package with only what it declares installed."""
    declared = Path(package, "pyproject.toml").read_text()
    needed = [path for path in PACKAGES if path == package or f'"{name_of(path)}==' in declared]
    session.install(*(f"./{path}" for path in needed), "pytest", "hypothesis")
    session.run("pytest", "-m", "not slow and not gpu", package, *session.posargs, env=TEST_ENV)


def name_of(package: str) -> str:
    return "stpn-" + Path(package).name.removeprefix("stpn-")


@nox.session(venv_backend="uv")
@nox.parametrize("end", ["lowest-direct", "highest"])
def ends(session: nox.Session, end: str) -> None:
    """Test with the lowest versions that are declared, and with the newest there are."""
    session.install("--resolution", end, "-r", TOOLS)
    session.run("pytest", "-m", "not slow and not gpu", *session.posargs, env=TEST_ENV)


@nox.session(**shared)
def demo(session: nox.Session) -> None:
    """Run ``stpn demo``; arguments go to it (``-- --help``)."""
    install(session)
    run(session, "stpn", "demo", *session.posargs)


@nox.session(**shared)
def bench(session: nox.Session) -> None:
    """Time all, or only ``-- kernels``, backbones, vid-metric or ytvis-metric; then options."""
    install(session)
    scripts = {
        "kernels": "kernels/benchmarks/bench_kernels.py",
        "backbones": "benchmarks/bench_backbones.py",
        "vid-metric": "benchmarks/bench_vid_metric.py",
        "ytvis-metric": "benchmarks/ytvis_evaluation.py",
    }
    chosen, options = list(scripts), session.posargs
    if options and options[0] in scripts:
        chosen, options = options[:1], options[1:]
    for name in chosen:
        run(session, "python", scripts[name], *options)


@nox.session(venv_backend="uv|virtualenv")
def wheels(session: nox.Session) -> None:
    """Build source distributions, and wheels from them, into ``wheels/``; check what is inside."""
    session.install("build", "twine")
    shutil.rmtree("wheels", ignore_errors=True)
    for package in PACKAGES:
        session.run("python", "-m", "build", "--outdir", "wheels", package)
    session.run("twine", "check", "--strict", *map(str, Path("wheels").iterdir()))
    for wheel in Path("wheels").glob("*.whl"):
        module = wheel.name.partition("-")[0]
        names = ZipFile(wheel).namelist()
        stray = [name for name in names if not name.startswith((f"{module}/", f"{module}-"))]
        expected = (f"{module}/py.typed", ".dist-info/licenses/LICENSE")
        if stray or not all(any(name.endswith(end) for name in names) for end in expected):
            session.error(f"{wheel} lacks one of {expected}, or has {stray}")


@nox.session(venv_backend="uv|virtualenv")
def installed(session: nox.Session) -> None:
    """Install the wheels (``nox -s wheels``) where nothing is, and do what the READMEs show."""
    session.install("--find-links", "wheels", name_of(PACKAGES[-1]))
    folder = Path(session.create_tmp())
    readmes = [Path("README.md"), *(Path(package, "README.md") for package in PACKAGES)]
    for number, readme in enumerate(readmes):
        shutil.copy(readme, folder / f"{number}.md")
    session.chdir(folder)  # away from the sources
    for number in range(len(readmes)):
        session.run("python", "-I", "-m", "doctest", f"{number}.md")
    session.run("stpn", "--help", silent=True)
    session.run("stpn", "recipes")
