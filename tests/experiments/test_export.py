"""The study of exports: its page, its files and its short form."""

import csv

import pytest

from experiments.export import browser, run
from experiments.runner import pages


def kept(name):
  with (run.RESULTS / f"{name}.csv").open() as file:
    return list(csv.DictReader(file))


def test_the_pages_say_what_the_files_say():
  text = (run.HERE / "README.md").read_text()
  tables = {
    "table": run.markdown(kept("digits")),
    "latents": run.latents_markdown(kept("latents")),
  }
  assert pages.filled(text, tables) == text
  guide = run.HERE.parents[1] / "docs" / "exporting.md"
  assert tables["table"] in guide.read_text()


def test_what_an_export_must_show():
  sizes = {row["what"]: int(row["bytes"]) for row in kept("digits")}
  whole = sizes["ONNX Runtime, float32"]
  assert sizes["ONNX Runtime, int8"] <= 0.3 * whole
  assert sizes["ONNX Runtime, float16"] <= 0.55 * whole
  apart = {row["batch"]: float(row["apart"]) for row in kept("latents")}
  assert apart.keys() == {"1", "3", "64"} and max(apart.values()) <= 1e-5


def test_the_short_form():
  pytest.importorskip("onnx", reason="the extra [onnx]")
  pytest.importorskip("onnxruntime", reason="the extra [test]")
  rows, latents = run.quick()
  assert [row["what"] for row in rows][1:] == [
    f"ONNX Runtime, {dtype}" for dtype in run.DTYPES
  ]
  assert float(rows[1]["apart"]) < 1e-5 and latents[0]["apart"] < 1e-5


def test_the_browser_page_says_what_the_files_say():
  shares, times = kept("browser"), kept("browser_latency")
  text = (run.HERE / "README.md").read_text()
  tables = {
    "browser": browser.shares_markdown(shares),
    "browser_latency": browser.latency_markdown(times),
  }
  assert pages.filled(text, tables) == text
  guide = run.HERE.parents[1] / "docs" / "exporting.md"
  assert tables["browser_latency"] in guide.read_text()
  assert float(shares[-1]["recognised"]) >= 0.95


@pytest.mark.skipif(
  bool(browser.lacking()), reason=f"needs {browser.lacking()}"
)
def test_the_short_form_of_the_browser():
  pytest.importorskip("onnxruntime", reason="the extra [test]")
  with run.small_run() as trained:
    shares, times = browser.study(trained, 1)
  assert [x["class"] for x in shares] == [*map(str, range(10)), "all"]
  assert len(times) == 3
