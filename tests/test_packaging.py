"""Installing: pins, the Python floor, what the wheel holds, and the set-up script."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
WORKSTATION = ROOT / "constraints/workstation.txt"
DEVICE = ROOT / "constraints/device-py310-aarch64.txt"
TORCH_SIDE = {"torch", "torchvision", "timm", "triton", "nncf", "lightning-fabric", "fvcore"}


def tracked() -> list[Path]:
    """The files that git has or would take."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def pins(file: Path) -> list[Requirement]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def applies(requirement: Requirement, python: str, machine: str = "x86_64") -> bool:
    """Is the requirement one for this Python on Linux?"""
    environment = {**default_environment(), "python_version": python,
                   "python_full_version": f"{python}.0", "sys_platform": "linux",
                   "platform_system": "Linux", "platform_machine": machine,
                   "platform_python_implementation": "CPython", "os_name": "posix"}  # fmt: skip
    return requirement.marker is None or requirement.marker.evaluate(environment)


def pinned(file: Path, python: str, machine: str = "x86_64") -> dict[str, str]:
    """Package to version, for one Python on Linux."""
    found: dict[str, str] = {}
    for pin in pins(file):
        if applies(pin, python, machine):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{file.name}: {name} is pinned twice for Python {python}"
            found[name] = next(iter(pin.specifier)).version
    return found


def asked(*extras: str) -> list[Requirement]:
    """The direct dependencies of the base and of some extras; `edgekd[...]` itself left out."""
    project = PROJECT["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines if not line.startswith("edgekd[")]


def test_constraints_are_names_and_versions_only() -> None:
    files = sorted((ROOT / "constraints").glob("*"))
    assert files == [DEVICE, WORKSTATION]
    for file in files:
        found = pins(file)
        assert len(found) > 30
        for pin in found:
            assert pin.url is None, pin
            assert [part.operator for part in pin.specifier] == ["=="], pin
        assert "://" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("python", PYTHONS)
def test_workstation_pins_every_direct_dependency(python: str) -> None:
    found = pinned(WORKSTATION, python)
    wanted = asked(*PROJECT["project"]["optional-dependencies"])
    wanted += [Requirement(line) for line in PROJECT["dependency-groups"]["dev"]]
    assert len(wanted) > 30
    for requirement in (r for r in wanted if applies(r, python)):
        version = found.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned: make constraints"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_what_builds_is_pinned_too() -> None:
    """setup.sh gives the same file as build constraints: our backend, and setuptools for sdists."""
    found = pinned(WORKSTATION, "3.11")
    for line in PROJECT["build-system"]["requires"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)])
    assert "setuptools" in found


def test_device_pins_have_no_torch() -> None:
    found = pinned(DEVICE, "3.10", "aarch64")
    for requirement in asked("onnxruntime", "openvino", "sign"):
        assert requirement.specifier.contains(found[canonicalize_name(requirement.name)])
    assert not TORCH_SIDE & set(found)
    assert not [name for name in found if name.startswith("nvidia")]


def test_base_install_has_no_torch() -> None:
    assert not TORCH_SIDE & {canonicalize_name(requirement.name) for requirement in asked()}


def test_python_floor_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.10"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py310"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.10"


def test_no_download_addresses_are_recorded() -> None:
    address = re.compile(
        r"https?://[^\s\"')>]+\.(?:whl|tar\.gz|tgz|tar\.bz2|zip)\b"  # a file to fetch
        r"|https?://[^\s\"')>]+/simple\b"  # an index
        r"|(?:index|find)[-_](?:url|links)\s*=\s*\S*://"
    )
    locks = re.compile(r"(^|/)((uv|poetry|pdm)\.lock|Pipfile\.lock|package-lock\.json)$")
    walked = 0
    for path in tracked():
        assert not locks.search(path.relative_to(ROOT).as_posix()), path
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        walked += 1
        if path != Path(__file__):
            assert not address.search(text), path
    assert walked > 80


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built by the installed backend; needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_recipes_and_package_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert recipes
    for path in recipes:
        assert f"edgekd/{path.relative_to(ROOT).as_posix()}" in names
    package = [path for path in tracked() if path.is_relative_to(ROOT / "edgekd")]
    assert len(package) > 60
    for path in package:
        assert path.relative_to(ROOT).as_posix() in names
    strangers = [name for name in names if not name.startswith(("edgekd/", "edgekd-"))]
    assert not strangers


def test_wheel_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
        (licence,) = [n for n in archive.namelist() if n.endswith("licenses/LICENSE")]
        assert b"Apache License" in archive.read(licence)
        (entry,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        console = f"edgekd = {PROJECT['project']['scripts']['edgekd']}"
        assert console in archive.read(entry).decode()
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    from edgekd import __version__

    assert metadata["Version"] == __version__


def test_console_script_exists() -> None:
    module, _, name = PROJECT["project"]["scripts"]["edgekd"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_ci_and_tools_can_be_run() -> None:
    for name in (".ci/run", "tools/setup.sh", "tools/constraints.sh", "tools/tensorrt_bindings.sh"):
        path = ROOT / name
        assert os.access(path, os.X_OK), name
        assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0, name
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What setup.sh reads, and a stand-in for uv that makes a venv and writes what it was told."""
    folder = tmp_path / "checkout"
    for name in ("tools/setup.sh", "pyproject.toml", "constraints/workstation.txt"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (folder / "tools/setup.sh").chmod(0o755)
    uv = tmp_path / "uv"
    uv.write_text(
        "#!/usr/bin/env bash\n"
        f'echo "$1" >> "{tmp_path}/calls"\n'
        'case "$1" in\n'
        "    --version) echo 'uv 0.99.0 (stand-in)' ;;\n"
        '    venv) "$4" -m venv --without-pip "${@: -1}" ;;\n'
        f'    pip) [ ! -e "{tmp_path}/no-network" ] ;;\n'
        "esac\n"
    )
    uv.chmod(0o755)
    return folder


def set_up(checkout: Path, **environment: str) -> tuple[int, list[str]]:
    """Run setup.sh; its exit code, and the uv commands that it gave."""
    calls = checkout.parent / "calls"
    calls.unlink(missing_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in ("EDGEKD_PYTHON", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(checkout / "tools/setup.sh")],
        env={**env, "UV": str(checkout.parent / "uv"), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, [call for call in told if call != "--version"]


def test_setup_does_nothing_the_second_time(checkout: Path) -> None:
    assert set_up(checkout) == (0, ["venv", "pip"])
    assert set_up(checkout) == (0, [])


def test_setup_installs_again_when_the_pins_change(checkout: Path) -> None:
    set_up(checkout)
    with (checkout / "constraints/workstation.txt").open("a") as file:
        file.write("# another\n")
    assert set_up(checkout) == (0, ["pip"])


def test_setup_starts_over_after_an_interrupted_install(checkout: Path) -> None:
    (checkout.parent / "no-network").touch()
    assert set_up(checkout)[0] != 0
    (checkout.parent / "no-network").unlink()
    assert set_up(checkout) == (0, ["venv", "pip"])
    assert set_up(checkout) == (0, [])


def test_setup_starts_over_in_a_moved_folder(checkout: Path) -> None:
    set_up(checkout)
    moved = checkout.rename(checkout.parent / "elsewhere")
    assert set_up(moved) == (0, ["venv", "pip"])


def test_setup_refuses_a_python_that_does_not_run(checkout: Path) -> None:
    assert set_up(checkout, EDGEKD_PYTHON="/no/such/python3") == (4, [])
