"""Rules of the repository that no single package can check."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stpn_tasks.results import load_results, statistic

ROOT = Path(__file__).parents[1]


def _load_packages() -> tuple[str, ...]:
    source = (ROOT / "noxfile.py").read_text()
    block = re.search(r"^PACKAGES = \((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    assert block is not None
    return tuple(re.findall(r'"([^"]+)"', block[1]))


PACKAGES = _load_packages()


def project(package: str) -> dict:
    return tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]


def test_noxfile_lists_every_distribution():
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/pyproject.toml")}
    found |= {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("packages/*/pyproject.toml")}
    assert set(PACKAGES) == found
    requirements = (ROOT / "requirements-dev.txt").read_text()
    assert re.findall(r"^-e \./(.+)$", requirements, re.MULTILINE) == list(PACKAGES)


def test_versions_are_in_lockstep():
    versions = {project(package)["version"] for package in PACKAGES}
    assert len(versions) == 1
    pins = {
        requirement
        for package in PACKAGES
        for requirement in project(package)["dependencies"]
        if requirement.startswith("stpn-")
    }
    assert pins
    assert {pin.partition("==")[2] for pin in pins} == versions


def declared_modules(package: str) -> set[str]:
    module_of = {"opencv-python-headless": "cv2", "pillow": "PIL", "scikit-learn": "sklearn"}
    declared = project(package)
    extras = declared.get("optional-dependencies", {}).values()
    needs = [*declared["dependencies"], *(needed for extra in extras for needed in extra)]
    names = {re.split(r"[<>=;\[ ]", needed)[0] for needed in needs}
    return {module_of.get(name, name.replace("-", "_")) for name in names}


def imported_modules(folder: Path) -> set[str]:
    imported: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    return imported - set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_declares_what_it_imports(package):
    own = next((ROOT / package / "src").iterdir()).name
    third_party = imported_modules(ROOT / package / "src") - {own, "pytest"}
    assert third_party <= declared_modules(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tests_of_a_package_need_no_more_than_it_declares(package):
    own = next((ROOT / package / "src").iterdir()).name
    there = {own, "pytest", "hypothesis"} | declared_modules(package)
    for path in PACKAGES:
        if next((ROOT / path / "src").iterdir()).name in there:
            there |= declared_modules(path)
    helpers = {path.stem for path in (ROOT / package / "tests").glob("*.py")}
    assert imported_modules(ROOT / package / "tests") <= there | helpers


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_readme_licence_and_types(package):
    assert (ROOT / package / "README.md").stat().st_size > 500
    assert (ROOT / package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    (source,) = (ROOT / package / "src").iterdir()
    assert (source / "py.typed").exists()


def test_core_needs_no_other_package_than_kernels():
    code = (
        "import sys, stpn_core; "
        "assert not {'stpn_data', 'stpn_backbones', 'timm', 'torchvision'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path):
    result = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) > 3
    if path.stem == "core_alone":
        assert lines[-1] == "also imported: nothing else"


def test_links_in_the_docs_lead_somewhere():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(ROOT / p / "README.md" for p in PACKAGES),
    ]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_test_files_are_found_by_name():
    # With __init__.py files pytest's importlib mode would confuse tests of the same name.
    folders = [ROOT / "tests", *(ROOT / package / "tests" for package in PACKAGES)]
    assert not [path for folder in folders for path in folder.rglob("__init__.py")]
    assert importlib.util.find_spec("stpn_kernels") is not None


def test_the_readme_shows_the_measured_numbers():
    results = load_results(ROOT / "results" / "demo-quick.json")
    text = (ROOT / "README.md").read_text()
    shown = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| [\d–]+ \|$", text, re.MULTILINE
    )
    rows = {label: [cell.strip("*") for cell in cells] for label, *cells in shown}
    assert {"baseline", "baseline, equal compute", "STPN", "STPN, another video"} <= rows.keys()
    labels = {model.label: model for model in results.models}
    for label, cells in rows.items():
        conditions = ("all", "deteriorated", "clean")
        measured = [statistic(labels[label], "same_class", name) for name in conditions]
        assert cells == list(map(str, measured)), label
