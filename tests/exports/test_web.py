"""The exported page: its files, and what it draws in a browser."""

import dataclasses
import io
import json
import pathlib
import time
import urllib.parse

import jax
import numpy as np
import PIL.Image
import pytest
from exported import params_of

from experiments.export import browser
from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.exports import Trained, web
from jaxflow.exports.sampler import exported_sampler
from jaxflow.runs.run import Run

pytest.importorskip("onnx", reason="the extra [onnx]")
in_browser = pytest.mark.skipif(
  bool(browser.lacking()), reason=f"needs {browser.lacking()}"
)
SHAPE = (8, 8, 1)
CLASSES = 24


def trained_of(method):
  """Return a run with random weights, its classes named."""
  config = default_config(method, data="given", model="dit")
  sizes = {"width": 32, "depth": 1, "num_heads": 2, "patch_size": 2}
  update(config, {"model": sizes})
  config, _ = resolve_alone(config, shape=SHAPE, num_classes=CLASSES)
  plan = make_plan(config)
  names = tuple(f"kind {chr(97 + i)}" for i in range(CLASSES))
  data = dataclasses.replace(plan.data, class_names=names)
  run = Run(dataclasses.replace(plan, data=data))
  return Trained(run=run, params=params_of(run), step=0, workdir=None)


@pytest.fixture(scope="module")
def trained():
  """Guidance is an input of the first; the second draws between its steps."""
  return {
    "guided": trained_of("improved_mean_flow"),
    "steps": trained_of("consistency_distillation"),
  }


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
  out = tmp_path_factory.mktemp("web")
  package = str(browser.PACKAGE)
  web.write(trained["guided"], out / "guided", onnxruntime_web=package)
  web.write(trained["steps"], out / "steps", nfe=2, onnxruntime_web=package)
  with browser.opened(out) as page:
    yield page


@pytest.fixture
def guided(page):
  page.show(folder="guided/")
  return page


def is_shown(page, name):
  return page.driver.find_element("id", name).is_displayed()


def text_of(page, name):
  return page.driver.find_element("id", name).text


def noise_of(seed, rows):
  """Return noise as `jaxflow sample` draws it, by JAX alone."""
  key = jax.random.key(seed)
  keys = [jax.random.split(jax.random.fold_in(key, i))[0] for i in range(rows)]
  return np.stack([jax.random.normal(k, SHAPE) for k in keys])


def expected_of(trained, nfe, last, **more):
  """Return what JAX draws of what the page gave to its sampler."""
  sampler = exported_sampler(trained.run, trained.params, nfe=nfe)
  given = {
    "noise": last["noise"].reshape(-1, *SHAPE),
    "label": last["labels"],
    **more,
  }
  draw = jax.jit(sampler.function)
  return draw(sampler.weights, *(given[x.name] for x in sampler.inputs))


def test_a_package_that_is_absent_is_named(trained, tmp_path):
  line = f"npm install .*@{web.VERSION}, or --onnxruntime_web=FOLDER"
  with pytest.raises(UsageError, match=line):
    out = tmp_path / "a"
    web.write(trained["guided"], out, onnxruntime_web=str(tmp_path))
  assert not (tmp_path / "a").exists()


def test_make_gets_the_version_that_is_tested():
  makefile = pathlib.Path(__file__).parents[2] / "Makefile"
  assert f"RUNTIME = onnxruntime-web@{web.VERSION}\n" in makefile.read_text()


@pytest.mark.parametrize("shape", [[3], [8, 8, 4], [16, 1], [8, 8, 8, 1]])
def test_shapes_that_are_not_drawn(shape):
  note = {"inputs": [], "output": {"shape": ["batch", *shape]}}
  with pytest.raises(UsageError, match="take format='onnx'"):
    web.check_drawn(note)
  for drawn in ([2], [8, 8, 3]):
    web.check_drawn(note | {"output": {"shape": ["batch", *drawn]}})


def test_labels_that_are_vectors():
  label = {"name": "label", "shape": ["batch", 5]}
  note = {"inputs": [label], "output": {"shape": ["batch", 2]}}
  with pytest.raises(UsageError, match="vectors"):
    web.check_drawn(note)


@in_browser
def test_the_page_draws_what_jax_draws(trained, guided):
  guided.fill("first", 7)
  guided.fill("guidance", 2.5)
  guided.choose(3)
  last = guided.last()
  noise = last["noise"].reshape(64, *SHAPE)
  np.testing.assert_allclose(noise, noise_of(7, 64), rtol=0, atol=2e-5)
  assert last["labels"].tolist() == [3] * 64
  assert last["guidance"].tolist() == [2.5]
  scale = np.asarray(2.5, np.float32)
  expected = expected_of(trained["guided"], 1, last, guidance=scale)
  found = last["samples"].reshape(64, *SHAPE)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@in_browser
def test_noise_between_steps_is_that_of_the_seed(trained, page):
  page.show(folder="steps/")
  assert not is_shown(page, "guided")
  page.fill("count", 16)
  page.fill("first", 7)
  last = page.last()
  key, rows = jax.random.key(7), range(16)
  second = [jax.random.split(jax.random.fold_in(key, i))[1] for i in rows]
  noise = [jax.random.normal(jax.random.fold_in(k, 0), SHAPE) for k in second]
  found = last["stepNoise"].reshape(16, 1, *SHAPE)
  wanted = np.stack(noise)[:, None]
  np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
  expected = expected_of(trained["steps"], 2, last, step_noise=found)
  samples = last["samples"].reshape(16, *SHAPE)
  np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-5)


@in_browser
def test_noise_goes_from_one_seed_to_another(guided):
  guided.fill("second", 4294967295)
  guided.fill("between", 1)
  a, b = noise_of(0, 64).ravel(), noise_of(4294967295, 64).ravel()
  np.testing.assert_allclose(guided.last()["noise"], b, rtol=0, atol=2e-5)
  guided.fill("between", 0.5)
  middle = (a + b) / np.sqrt(2)
  found = guided.last()["noise"]
  np.testing.assert_allclose(found, middle, rtol=0, atol=4e-5)
  assert text_of(guided, "between-value") == "0.50"


@in_browser
def test_classes_are_found_by_name(guided):
  driver = guided.driver
  labels = driver.find_elements("css selector", "#chips label")
  names = [x.text for x in labels]
  assert names == [*(f"kind {chr(97 + i)}" for i in range(24)), "no class"]
  assert guided.last()["labels"][:24].tolist() == list(range(24))
  driver.find_element("id", "filter").send_keys("KIND W")
  assert [x.text for x in labels if x.is_displayed()] == ["kind w"]
  driver.find_element("id", "none").click()
  guided.fill("filter", "", draws=False)
  assert all(x.is_displayed() for x in labels)
  driver.find_element("id", "none").click()
  assert text_of(guided, "latency") == "Choose a class."
  with guided.drawing():
    labels[5].click()
  with guided.drawing():
    labels[24].click()
  assert guided.last()["labels"][:4].tolist() == [5, 24, 5, 24]
  with guided.drawing():
    driver.find_element("id", "all").click()
  assert set(guided.last()["labels"]) == set(range(24))


@in_browser
def test_number_noise_and_time(guided):
  first = guided.last()["noise"]
  with guided.drawing():
    guided.driver.find_element("id", "again").click()
  assert np.mean(guided.last()["noise"] == first) < 0.01
  guided.fill("count", 16)
  assert guided.last()["samples"].shape == (16 * 64,)
  words = text_of(guided, "latency").split(": ")
  assert words[0] == "16 samples, one call of the network"
  value, unit, device = words[1].split(" ", 2)
  assert float(value) > 0 and unit == "ms"
  assert device in ("(WebAssembly, one thread)", "(WebGPU)")


@in_browser
def test_the_grid_is_downloaded(guided, tmp_path):
  allow = {"behavior": "allow", "downloadPath": str(tmp_path)}
  guided.driver.execute_cdp_cmd("Page.setDownloadBehavior", allow)
  guided.driver.find_element("id", "download").click()
  file, until = tmp_path / "given-0.png", time.monotonic() + 30
  while not file.exists() and time.monotonic() < until:
    time.sleep(0.05)
  image = np.asarray(PIL.Image.open(io.BytesIO(file.read_bytes())))
  # Eight by eight digits of 64 pixels, and gaps of 2.
  assert image.shape == (8 * 66 - 2, 8 * 66 - 2, 4)
  assert image[:64, 64:66].max() == 0
  first = np.clip(guided.last()["samples"][:64], -1, 1)
  shade = image[:64, :64, 0].mean()
  np.testing.assert_allclose(shade, 255 * (first.mean() + 1) / 2, atol=10)


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_asks_no_other_host(page, width):
  page.show(width, folder="guided/")
  for name in ("guided", "between", "filter", "first", "count", "download"):
    assert is_shown(page, name), name
  needed = "return document.documentElement.scrollWidth"
  assert page.driver.execute_script(needed) <= width
  logs = page.driver.get_log("browser")
  assert [x for x in logs if x["level"] == "SEVERE"] == []
  events = [
    json.loads(x["message"])["message"]
    for x in page.driver.get_log("performance")
  ]
  asked = [
    urllib.parse.urlsplit(x["params"]["request"]["url"])
    for x in events
    if x["method"] == "Network.requestWillBeSent"
  ]
  assert any(x.path.endswith(".wasm") for x in asked)
  # The browser's own first tab is chrome://new-tab-page.
  inside = "data", "blob", "chrome", "chrome-untrusted"
  hosts = {x.hostname for x in asked if x.scheme not in inside}
  assert hosts == {"127.0.0.1"}
