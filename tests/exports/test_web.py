"""The exported page: its files, and what it draws in a browser."""

import json
import urllib.parse

import jax
import numpy as np
import pytest

from experiments.export import browser
from experiments.export.run import small_run
from jaxflow.errors import UsageError
from jaxflow.exports.sampler import exported_sampler
from jaxflow.exports.web import VERSION, check_drawn

pytest.importorskip("onnx", reason="the extra [onnx]")
in_browser = pytest.mark.skipif(
  bool(browser.lacking()), reason=f"needs {browser.lacking()}"
)
SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def run():
  with small_run() as run:
    yield run


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
  out = tmp_path_factory.mktemp("web") / "page"
  run.export("web", out, onnxruntime_web=str(browser.PACKAGE))
  with browser.opened(out) as page:
    yield page


def noise_of(seed, rows):
  """Return noise as `jaxflow sample` draws it, by JAX alone."""
  key = jax.random.key(seed)
  keys = [jax.random.split(jax.random.fold_in(key, i))[0] for i in range(rows)]
  return np.stack([jax.random.normal(k, SHAPE) for k in keys])


def test_a_package_that_is_absent_is_named(run, tmp_path):
  with pytest.raises(UsageError, match=f"npm install .*@{VERSION}"):
    run.export("web", tmp_path / "a", onnxruntime_web=str(tmp_path))
  assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("shape", [[3], [8, 8, 4], [16, 1], [8, 8, 8, 1]])
def test_shapes_that_are_not_drawn(shape):
  note = {"inputs": [], "output": {"shape": ["batch", *shape]}}
  with pytest.raises(UsageError, match="take format='onnx'"):
    check_drawn(note)
  for drawn in ([2], [8, 8, 3]):
    check_drawn(note | {"output": {"shape": ["batch", *drawn]}})


def test_labels_that_are_vectors():
  label = {"name": "label", "shape": ["batch", 5]}
  note = {"inputs": [label], "output": {"shape": ["batch", 2]}}
  with pytest.raises(UsageError, match="vectors"):
    check_drawn(note)


@in_browser
def test_the_page_draws_what_jax_draws(run, page):
  page.show()
  page.fill("first", 7)
  page.choose(3)
  last = page.last()
  noise = last["noise"].reshape(64, *SHAPE)
  np.testing.assert_allclose(noise, noise_of(7, 64), rtol=0, atol=2e-5)
  assert last["labels"].tolist() == [3] * 64
  sampler = exported_sampler(run.run, run.params, nfe=1)
  expected = sampler.function(sampler.weights, noise, last["labels"])
  found = last["samples"].reshape(64, *SHAPE)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@in_browser
def test_noise_goes_from_one_seed_to_another(page):
  page.show()
  page.fill("second", 4294967295)
  page.fill("between", 1)
  a, b = noise_of(0, 64).ravel(), noise_of(4294967295, 64).ravel()
  np.testing.assert_allclose(page.last()["noise"], b, rtol=0, atol=2e-5)
  page.fill("between", 0.5)
  middle = (a + b) / np.sqrt(2)
  np.testing.assert_allclose(page.last()["noise"], middle, rtol=0, atol=4e-5)


@in_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_asks_no_other_host(page, width):
  page.show(width)
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
