"""The package: built as a wheel, installed into an environment of its own, used from an empty folder."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import stargan
from stargan.constants import DEFAULT_MODEL
from stargan.pictures.provenance import read_provenance
from stargan.training.state import DISCRIMINATOR_FILE

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "photos" / "collins.png"
WEIGHTS = ROOT / "weights" / DEFAULT_MODEL


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built offline, of a copy: setuptools leaves a folder ``build`` beside the sources."""
    top = tmp_path_factory.mktemp("wheel")
    for name in ("stargan", "weights"):
        shutil.copytree(ROOT / name, top / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, top / "source" / name)
    build = [
        sys.executable,
        "-c",
        "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])",
    ]
    done = subprocess.run([*build, top], cwd=top / "source", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = top.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of an environment that has the wheel and sees what is installed here; in an empty folder."""
    top = tmp_path_factory.mktemp("installed")
    environment = top / "venv"
    venv.create(environment)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(environment)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    paths = {"base": str(environment), "platbase": str(environment)}
    Path(sysconfig.get_path("purelib", vars=paths), "outside.pth").write_text(sysconfig.get_path("purelib"))
    (top / "empty").mkdir()

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        hidden = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [programs / program, *map(str, arguments)],
            cwd=top / "empty",
            env=hidden | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def test_the_wheel_holds_all_of_the_package_and_the_default_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (archive.read(name) for name in archive.namelist() if name.endswith("/METADATA"))
        shipped = [file for file in WEIGHTS.iterdir() if file.name != DISCRIMINATOR_FILE]
        for file in shipped:
            assert archive.read(f"stargan/weights/{DEFAULT_MODEL}/{file.name}") == file.read_bytes()
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "stargan").rglob("*") if p.suffix in (".py", ".js")}
    model = {f"stargan/weights/{DEFAULT_MODEL}/{file.name}" for file in shipped}
    assert names == code | model | {"stargan/py.typed"}

    facts = message_from_bytes(about)
    assert facts["Version"] == stargan.__version__
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    asked = {Requirement(line) for line in lines if line and not line.startswith("#")}
    assert asked == {Requirement(text) for text in facts.get_all("Requires-Dist")}


# Of another requirements file, or of a ZeroGPU Space alone; whoever imports them does without or says so.
OPTIONAL = {
    "mcp",
    "onnxruntime",
    "pyarrow",
    "ray",
    "spaces",
    "spandrel",
    "tensorboard",
    "torch-fidelity",
    "torchmetrics",
}


def test_what_the_package_imports_is_required() -> None:
    """By requirements.txt, or by something that it requires."""
    required: set[str] = set()
    left = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in "#"]
    while left:
        name = canonicalize_name(left.pop().name)
        if name not in required:
            required.add(name)
            further = map(Requirement, metadata.requires(name) or [])
            left += [one for one in further if one.marker is None or one.marker.evaluate({"extra": ""})]

    distributions = metadata.packages_distributions()
    for file in [*(ROOT / "stargan").rglob("*.py"), ROOT / "app.py"]:
        for name in imported(file) - sys.stdlib_module_names - {"stargan"}:
            found = {canonicalize_name(distribution) for distribution in distributions.get(name, [name])}
            assert found & (required | OPTIONAL), f"{file.relative_to(ROOT)} imports {name}, which nothing requires"


def imported(file: Path) -> set[str]:
    """The top-level names of what a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_version_stands_once() -> None:
    project = (ROOT / "pyproject.toml").read_text().split("[project]\n")[1].split("\n[")[0]
    assert not re.search(r"^version\b", project, re.MULTILINE)
    found = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "stargan").rglob("*.py")
        if re.search(rf"[\"']{re.escape(stargan.__version__)}[\"']", path.read_text())
    ]
    assert found == ["stargan/__init__.py"]


def test_the_installed_command(installed: Callable, tmp_path: Path) -> None:
    done = installed("stargan", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: stargan [-h]")

    done = installed("stargan", "translate", PHOTO, "--output", tmp_path, "--count", 2, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "1 photos: 1 drawn" in done.stdout
    drawings = [tmp_path / f"collins-anime-seed{seed}.png" for seed in (0, 1)]
    for drawing in drawings:
        assert read_provenance(drawing)["model"] == DEFAULT_MODEL
        with Image.open(drawing) as picture:
            assert picture.size == (128, 128)
            assert max(high - low for low, high in picture.convert("RGB").getextrema()) > 100  # not one flat colour
    assert drawings[0].read_bytes() != drawings[1].read_bytes()


def test_the_installed_benchmark_says_what_it_lacks(installed: Callable) -> None:
    done = installed("stargan", "bench", "infer")
    assert done.returncode == 2
    assert done.stderr == f"The benchmark draws examples/photos/{PHOTO.name}: run it in a checkout of the repository.\n"


def test_the_installed_library(installed: Callable) -> None:
    program = "import stargan; t = stargan.load_translator(); print(stargan.__file__, stargan.__version__, t.domains)"
    done = installed("python", "-c", program)
    assert done.returncode == 0, done.stderr
    where, version, domains = done.stdout.split(maxsplit=2)
    assert not Path(where).is_relative_to(ROOT)
    assert version == stargan.__version__
    assert domains.strip() == "('anime', 'female', 'male')"


def test_importing_the_library_is_quick() -> None:
    program = (
        "import sys, stargan; print('torch' in sys.modules, stargan.open_photo.__module__, hasattr(stargan, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "stargan.pictures.io", "False"], done.stderr
