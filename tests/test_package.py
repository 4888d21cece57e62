"""What the wheel holds, and what sees the package from another folder."""

import importlib.metadata
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

import jaxflow

ROOT = pathlib.Path(__file__).parents[1]
NAME = "jaxflow-generative"
LARGEST = 32_000  # bytes of a file of code; the largest now has 13,440
USER = """\
from jaxflow import losses

losses.mean_flow_loss
losses.no_such_loss
"""
# JAX takes long to read and is not what is asked here.
MYPY = """\
[mypy]
cache_dir = /dev/null
[mypy-jax.*,numpy.*]
follow_imports = skip
"""


def is_editable():
  """Whether this repository is what is installed, and its files are used."""
  try:
    text = importlib.metadata.distribution(NAME).read_text("direct_url.json")
  except importlib.metadata.PackageNotFoundError:
    return False
  origin = json.loads(text or "{}")
  editable = origin.get("dir_info", {}).get("editable", False)
  return editable and origin["url"] == ROOT.as_uri()


editable = pytest.mark.skipif(
  not is_editable(), reason="this repository is not installed: make install"
)


def run(*words, cwd):
  return subprocess.run(
    [sys.executable, "-m", *words],
    cwd=cwd,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel that is made of the source archive."""
  folder = tmp_path_factory.mktemp("package")
  done = run("hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
  assert done.returncode == 0, done.stdout
  (source,) = folder.glob("*.tar.gz")
  flags = "--quiet", "--no-deps", "--no-build-isolation", "--no-index"
  done = run("pip", "wheel", *flags, source.name, cwd=folder)
  assert done.returncode == 0, done.stdout
  (file,) = folder.glob("*.whl")
  with zipfile.ZipFile(file) as archive:
    yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
  (name,) = (x for x in wheel.namelist() if x.endswith("/METADATA"))
  return importlib.metadata.PathDistribution(
    zipfile.Path(wheel, name).parent
  ).metadata


def source_files(folder):
  return {
    path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")
  }


def test_wheel_holds_the_package_and_the_configs(wheel):
  expected = source_files("jaxflow") | {"jaxflow/py.typed"}
  expected |= {f"jaxflow/{x}" for x in source_files("configs")}
  pages = (ROOT / "jaxflow/exports/sampler_page").iterdir()
  expected |= {str(x.relative_to(ROOT)) for x in pages}
  inside = {x for x in wheel.namelist() if ".dist-info/" not in x}
  assert inside == expected
  digits = (ROOT / "configs/digits.py").read_bytes()
  assert wheel.read("jaxflow/configs/digits.py") == digits


def test_licence_travels(wheel):
  (name,) = (x for x in wheel.namelist() if x.endswith("licenses/LICENSE"))
  assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()


def test_no_file_is_large(wheel):
  code = [x for x in wheel.infolist() if ".dist-info/" not in x.filename]
  assert not {x.filename for x in code if x.file_size > LARGEST}


def test_links_on_the_index_lead_to_the_repository(metadata):
  (address,) = (x.split(", ")[1] for x in metadata.get_all("Project-URL"))
  text = metadata.get_payload()
  ours = (ROOT / "README.md").read_text()
  assert len(text) > len(ours)
  targets = re.findall(r'\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"', text)
  here = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", ours)
  targets = [a or b for a, b in targets]
  assert here and all(re.match("https://|#", x) for x in targets)
  for path in here:
    kind = "raw" if path.endswith(".png") else "blob"
    assert f"{address}/{kind}/main/{path}" in targets


def test_versions_agree(metadata):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert metadata["Name"] == project["name"] == NAME
  assert metadata["Version"] == jaxflow.__version__


def test_one_loss_loads_jax_alone():
  # JAX itself loads etils and may load scipy.
  modules = (
    *("absl", "array_record", "flax", "grain", "matplotlib", "ml_collections"),
    *("optax", "orbax", "PIL", "rich", "sklearn", "tensorboardX"),
    *("tensorflow_datasets", "tensorstore"),
  )
  code = (
    "import sys; from jaxflow import losses;"
    f" print([x for x in {modules} if x in sys.modules])"
  )
  words = [sys.executable, "-c", code]
  assert subprocess.check_output(words, cwd=ROOT, text=True).strip() == "[]"


@editable
def test_installed_version_is_this_one(metadata):
  assert importlib.metadata.version(NAME) == metadata["Version"]


@editable
@pytest.mark.parametrize(
  "checker", [("pyright", "--pythonpath"), ("mypy", "--python-executable")]
)
def test_type_checkers_see_the_package_from_elsewhere(tmp_path, checker):
  name, option = checker
  if importlib.util.find_spec(name) is None:
    pytest.skip(f"needs {name}")
  (tmp_path / "user.py").write_text(USER)
  (tmp_path / "mypy.ini").write_text(MYPY)
  done = run(name, f"{option}={sys.executable}", "user.py", cwd=tmp_path)
  errors = [x for x in done.stdout.splitlines() if "error:" in x]
  assert len(errors) == 1 and "no_such_loss" in errors[0], done.stdout
