"""What an installed wheel holds, that versions and licence agree everywhere, and the list of skips."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import midillm_jax
from midillm_jax import commands, config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without network: setuptools comes with the dev extra."""
    folder = tmp_path_factory.mktemp("wheel")
    # Beside the sources no build/ is left behind, and none that lies there can leak into the wheel.
    build = (
        "import sys; sys.argv[1:] = ['egg_info', '--egg-base', sys.argv[1], 'build', '--build-base', sys.argv[1], "
        "'bdist_wheel', '--dist-dir', sys.argv[1]]; exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build.replace("exec(", "__file__ = 'setup.py'; exec("), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_configs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("midillm_jax/")}
        assert not {name for name in archive.namelist() if name.startswith(("tests/", "configs/"))}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "midillm_jax").rglob("*.py")}
    configs = {f"midillm_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.py")}
    assert len(package) > 5
    assert configs
    model = {path.relative_to(ROOT).as_posix() for path in (ROOT / "midillm_jax" / "assets").rglob("*.*")}
    assert model
    assert inside == package | configs | model


def test_a_config_is_found_outside_a_clone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    name = next((ROOT / "configs").glob("*.py")).name
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = f"import midillm_jax.config as c; print(c.__file__); print(c.find({name!r})); print(c.load({name!r}).name)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    module, found, run = done.stdout.splitlines()
    assert Path(module).is_relative_to(tmp_path / "site"), "another installation was imported"
    assert found == str(tmp_path / "site" / "midillm_jax" / "configs" / name)
    assert run == config.load(str(ROOT / "configs" / name)).name


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == midillm_jax.__version__
    assert f"\nversion: {midillm_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert midillm_jax.__version__ in (ROOT / "CHANGELOG.md").read_text()


def test_ci_runs_every_python_that_setup_allows(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    (allowed,) = (line.removeprefix("Requires-Python: ") for line in lines if line.startswith("Requires-Python: "))
    pythons = [version for minor in range(8, 20) if (version := f"3.{minor}") in SpecifierSet(allowed)]
    listed = ", ".join(f'"{version}"' for version in pythons)
    assert f"python: [{listed}]" in (ROOT / ".github/workflows/ci.yml").read_text()


def test_generation_installs_without_the_training_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    always = {line.split(">")[0] for line in required if "extra ==" not in line}
    assert not always & {"array_record", "array-record", "grain", "orbax-checkpoint", "tensorstore", "torch"}
    assert {"jax", "flax", "numpy", "mido", "sentencepiece", "tokenizers", "safetensors", "tyro", "rich"} <= always


def test_every_library_that_is_imported_is_declared(wheel: Path) -> None:
    """Those that others happen to bring along too; commands.py knows which extra brings what a person may lack."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    required = [Requirement(line.split(": ", 1)[1]) for line in lines if line.startswith("Requires-Dist: ")]
    extras = [line.split(": ")[1] for line in lines if line.startswith("Provides-Extra: ")]
    always = {canonicalize_name(each.name) for each in required if each.marker is None}
    brought = {
        (canonicalize_name(each.name), extra)
        for each in required
        for extra in extras
        if each.marker is not None and each.marker.evaluate({"extra": extra})
    }
    # What is not installed here is looked up by its module's name, where the package has another.
    brings = {"llama_cpp": ["llama-cpp-python"]} | importlib.metadata.packages_distributions()
    for path in (ROOT / "midillm_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"midillm_jax"}:
                where = f"{path}:{node.lineno}: imports {name}, which setup.py does not declare"
                by = {canonicalize_name(each) for each in brings.get(name, [name])}
                if not by & always:
                    assert name in commands.EXTRAS, f"{where} for every installation; commands.EXTRAS lacks its extra"
                    assert {(each, commands.EXTRAS[name]) for each in by} & brought, f"{where} in that extra"


def fake(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


MAKE = """\
echo '== 1 passed in 1s =='
for word; do
  case $word in DEMO_OUT=*)
    mkdir -p "${word#*=}/demo/model"
    echo weights > "${word#*=}/demo/model/model.safetensors"
    echo scores > "${word#*=}/demo/results.json"
    for step in 1 2 3 4 5 6; do echo "$step: done before"; done
  esac
done
"""
"""Stands for make: its tests pass, and its demo leaves what it should and is done before."""


@pytest.mark.parametrize("ci", ["true", ""])
def test_only_a_ci_machine_gets_packages_installed(tmp_path: Path, ci: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sh", "tail", "tee"):
        (tools / name).symlink_to(str(shutil.which(name)))
    fake(tools, "id", "echo 0")
    fake(tools, "make", MAKE)
    fake(tools, "apt-get", f"echo called >> {tmp_path}/apt")
    done = subprocess.run(
        [ROOT / ".ci" / "run"],
        env={"PATH": str(tools), "TMPDIR": str(tmp_path)} | ({"CI": ci} if ci else {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "apt").exists() == (ci == "true")


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:6] == ["Apache", "License", "Version", "2.0,", "January", "2004"]
    assert "END OF TERMS AND CONDITIONS" in text


def run_tests(folder: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest on a file of tests beside this project's conftest.py."""
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(f"import pytest\n{tests}")
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )


SKIPPING = """
def test_runs(): pass
@pytest.mark.skip(reason="no piano here")
def test_skips(): pass
"""


@pytest.mark.parametrize(
    ("allowed", "passes"),
    [
        ("# nothing\n", False),
        ("test_it.py::test_runs | no piano here\n", False),
        ("test_it.py::test_skips | no organ here\n", False),
        ("test_it.py::test_sk* | no piano*\n", True),
        ('test_it.py::test_skips | no piano here | python_version >= "3.0"\n', True),
        ('test_it.py::test_skips | no piano here | python_version < "3.0"\n', False),
    ],
)
def test_a_skip_that_is_not_listed_fails_the_run(tmp_path: Path, allowed: str, passes: bool) -> None:
    (tmp_path / "allowed.txt").write_text(allowed)
    done = run_tests(tmp_path, SKIPPING, "--allowed-skips=allowed.txt")
    assert (done.returncode == 0) == passes, done.stdout + done.stderr
    assert ("test_it.py::test_skips: no piano here" in done.stdout) == (not passes)
    assert "1 passed, 1 skipped" in done.stdout


def test_skips_of_all_workers_are_collected(tmp_path: Path) -> None:
    (tmp_path / "allowed.txt").write_text("test_it.py::test_skips | no organ here")
    done = run_tests(tmp_path, SKIPPING, "--allowed-skips=allowed.txt", "-n", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("test_it.py::test_skips: no piano here") == 1


def test_a_whole_module_that_skips_is_a_skip_too(tmp_path: Path) -> None:
    (tmp_path / "allowed.txt").write_text("\n")
    tests = "pytest.importorskip('no_such_library')\ndef test_never(): pass\n"
    done = run_tests(tmp_path, tests, "--allowed-skips=allowed.txt", "-n", "2")
    assert done.returncode != 0, done.stdout
    assert "test_it.py: could not import 'no_such_library'" in done.stdout
