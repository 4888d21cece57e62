"""What the exported page draws in a browser, and how long it takes.

A run of digits is exported as a page. Chromium opens it from a local server,
each class is clicked, and the recogniser of the demo reads 64 samples of each.

  python -m experiments.export.browser --workdir=runs/demo/mean_flow  # writes
  python -m experiments.export.browser --quick   # under 60 s, prints only

It needs chromium, chromedriver, `pip install selenium`, and onnxruntime-web
(`npm install onnxruntime-web`, or $JAXFLOW_ONNXRUNTIME_WEB names its folder).
"""

import argparse
import contextlib
import functools
import http.server
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import jaxflow
from experiments.export import run as exports
from experiments.runner import pages
from jaxflow import metrics
from jaxflow.errors import RunError
from jaxflow.exports.onnx import make_model
from jaxflow.exports.sampler import exported_sampler
from jaxflow.exports.web import RUNTIME
from jaxflow.runs.opening import load_data

ROWS = 64
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PACKAGE = pathlib.Path(
  os.environ.get("JAXFLOW_ONNXRUNTIME_WEB")
  or exports.HERE.parents[1] / "node_modules" / "onnxruntime-web"
)
FLAGS = (
  *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
  *("--no-first-run", "--disable-background-networking"),
  *("--disable-component-update", "--disable-sync", "--no-proxy-server"),
)
# Draws what the page drew last, again; leaves milliseconds of each call.
AGAIN = """
const [rows, times, done] = arguments;
Promise.all([import("./backend.js"), import("./page.js")]).then(
  async ([{open}, {last}]) => {
    const backend = await open(), spent = [];
    const size = last.noise.length / last.labels.length;
    const given = {...last, labels: last.labels.slice(0, rows),
                   noise: last.noise.slice(0, rows * size)};
    for (let i = 0; i <= times; i++) {
      const began = performance.now();
      await backend.draw(given);
      spent.push(performance.now() - began);
    }
    done(spent.slice(1));
  }).catch(error => done(String(error)));
"""
LAST = """
const done = arguments[0];
import("./page.js").then(({last}) => done({
  samples: [...last.samples], noise: [...last.noise],
  labels: last.labels && [...last.labels]}));
"""


def lacking() -> str:
  """Return what is absent that a browser's run needs, "" if all is there."""
  if not (BROWSER and DRIVER):
    return "chromium and chromedriver"
  if importlib.util.find_spec("selenium") is None:
    return "pip install selenium"
  if not all((PACKAGE / "dist" / name).is_file() for name in RUNTIME):
    return f"npm install onnxruntime-web, or {PACKAGE}"
  return ""


class Page:
  """An exported page that is open in a browser.

  Attributes:
    driver: The browser.
  """

  def __init__(self, driver: Any, address: str):
    self.driver, self._address = driver, address

  def show(self, width: int = 1280, height: int = 900) -> None:
    """Load the page and wait until it has drawn."""
    size = {"width": width, "height": height}
    size |= {"deviceScaleFactor": 1, "mobile": width < 600}
    self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    self.driver.get(self._address)
    self._wait(0)

  def choose(self, label: int) -> None:
    """Choose one class by clicks, and wait until it is drawn."""
    self.driver.find_element("id", "none").click()
    before = self._drawn()
    self.driver.execute_script(
      f"document.querySelector('#chips input[value=\"{label}\"]').click()"
    )
    self._wait(before)

  def fill(self, name: str, value: Any) -> None:
    """Set a control, and wait until what it asks for is drawn."""
    before = self._drawn()
    self.driver.execute_script(
      "const x = document.getElementById(arguments[0]);"
      "x.value = arguments[1];"
      "x.dispatchEvent(new Event('input', {bubbles: true}))",
      *(name, str(value)),
    )
    self._wait(before)

  def last(self) -> dict[str, np.ndarray]:
    """Return labels, noise and samples that were drawn last, flat."""
    found = self.driver.execute_async_script(LAST)
    return {
      name: np.asarray(x, np.int32 if name == "labels" else np.float32)
      for name, x in found.items()
    }

  def milliseconds(self, rows: int, times: int) -> float:
    """Return the median time of a call, after one that is not timed."""
    spent = self.driver.execute_async_script(AGAIN, rows, times)
    return float(np.median(spent))

  def _drawn(self) -> int:
    return int(
      self.driver.execute_script("return document.body.dataset.drawn ?? 0")
    )

  def _wait(self, before: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(self.driver, 60).until(lambda _: self._drawn() > before)


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[Page]:
  """Serve a folder and open its page in a browser."""
  from selenium import webdriver
  from selenium.webdriver.chrome.service import Service

  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
      """Print nothing."""

  options = webdriver.ChromeOptions()
  options.binary_location = str(BROWSER)
  logs = {"browser": "ALL", "performance": "ALL"}
  options.set_capability("goog:loggingPrefs", logs)
  serve = functools.partial(Quiet, directory=str(folder))
  with (
    http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server,
    tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
  ):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
      options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(120)
    try:
      page = Page(driver, f"http://127.0.0.1:{server.server_port}/index.html")
      page.show()
      yield page
    finally:
      driver.quit()
      server.shutdown()


def measured(
  run: jaxflow.api.TrainedRun, page: Page, times: int, screenshot: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Return the share recognised by class and in all, and latencies."""
  sampler = exported_sampler(run.run, run.params, step=run.step, nfe=1)
  count = sampler.note["num_classes"]
  if screenshot:
    page.driver.save_screenshot(screenshot)
  drawn, labels = [], np.repeat(np.arange(count), ROWS)
  for label in range(count):
    page.choose(label)
    page.fill("first", label)
    last = page.last()
    assert set(last["labels"]) == {label}
    drawn.append(last["samples"].reshape(ROWS, *run.run.model.shape))
  shares = []
  for name, rows in [
    *((str(x), labels == x) for x in range(count)),
    ("all", labels >= 0),
  ]:
    value = recognised(run, np.concatenate(drawn)[rows], labels[rows])
    shares.append({"class": name, "samples": int(rows.sum())})
    shares[-1]["recognised"] = round(value, 4)
  times_ = []
  session = exports.session_of(make_model(sampler))
  weights, jitted = jax.device_put(sampler.weights), jax.jit(sampler.function)
  for what, draw in (
    ("ONNX Runtime", lambda x: session.run(None, x)),
    ("jax.jit", lambda x: np.asarray(jitted(weights, *x.values()))),
  ):
    row = {"what": what}
    for rows in exports.BATCHES:
      given = exports.arguments(sampler, rows)
      spent = exports.milliseconds(lambda d=draw, g=given: d(g), times)
      row[f"ms_{rows}"] = round(spent, 3)
    times_.append(row)
  row = {"what": "browser, WebAssembly, one thread"}
  for rows in exports.BATCHES:
    row[f"ms_{rows}"] = round(page.milliseconds(rows, times), 3)
  return shares, [row, *times_]


def recognised(
  run: jaxflow.api.TrainedRun, samples: np.ndarray, labels: np.ndarray
) -> float:
  """Return the share that training digits recognise as the class."""
  real = load_data(run.run.plan.data, "train")
  known = real.take(np.arange(len(real)))
  sides = (
    metrics.SampleSummary(num=len(x), samples=x, label=np.asarray(y))
    for x, y in (
      (np.clip(samples, -1, 1), labels),
      (known["data"], known["cond"]),
    )
  )
  found = metrics.compare(*sides, names=("recognised",))
  return found["recognised"].value


def shares_markdown(rows: list[dict[str, Any]]) -> str:
  """Return the table of recognised samples."""
  lines = ["| class | samples | recognised |", "|---|--:|--:|"]
  lines += [
    f"| {x['class']} | {x['samples']} | {float(x['recognised']):.3f} |"
    for x in rows
  ]
  return "\n".join(lines)


def latency_markdown(rows: list[dict[str, Any]]) -> str:
  """Return the table of latencies."""
  lines = [
    "| sampler, on 2 CPU cores | ms, batch 1 | ms, batch 64 |",
    "|---|--:|--:|",
  ]
  lines += [
    f"| {x['what']} | {float(x['ms_1']):.2f} | {float(x['ms_64']):.1f} |"
    for x in rows
  ]
  return "\n".join(lines)


def study(
  run: jaxflow.api.TrainedRun, times: int, screenshot: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Export a run as a page, open it and measure."""
  if absent := lacking():
    raise RunError(f"the browser's part needs {absent}")
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / "page"
    run.export("web", out, onnxruntime_web=str(PACKAGE))
    with opened(out) as page:
      return measured(run, page, times, screenshot)


def main() -> int:
  """Run the study."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--workdir", default="runs/demo/mean_flow")
  parser.add_argument("--screenshot", default="", help="a PNG file to write")
  parser.add_argument("--quick", action="store_true", help="write nothing")
  given = parser.parse_args()
  if given.quick:
    with exports.small_run() as run:
      shares, times = study(run, 1)
    print(shares_markdown(shares), latency_markdown(times), sep="\n\n")
    return 0
  shares, times = study(jaxflow.load(given.workdir), 50, given.screenshot)
  exports.write("browser", shares)
  exports.write("browser_latency", times)
  page = exports.HERE / "README.md"
  tables = {
    "browser": shares_markdown(shares),
    "browser_latency": latency_markdown(times),
  }
  page.write_text(pages.filled(page.read_text(), tables))
  return 0


if __name__ == "__main__":
  sys.exit(main())
