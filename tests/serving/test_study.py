"""The study of a server under load: its page, its figures, its short form."""

import json

import pytest

from experiments.runner import pages
from experiments.serving import run

pytest.importorskip("starlette", reason="the extra [serve]")
pytest.importorskip("uvicorn", reason="the extra [serve]")
pytest.importorskip("httpx", reason="the extra [test]")


def test_the_page_says_what_the_file_says():
  found = json.loads(run.RESULTS.read_text())
  text = (run.HERE / "README.md").read_text()
  texts = {"table": run.markdown(found), "signal": run.ending(found)}
  assert pages.filled(text, texts) == text
  assert texts["table"] in run.GUIDE.read_text()


def test_what_a_server_must_show():
  found = json.loads(run.RESULTS.read_text())
  loads = [row for row in found["rows"] if "requests" in row]
  assert [row["clients"] for row in loads] == [32, 1, 32]
  for row in loads:
    assert row["requests"] == row["answered"] == 2000 and row["lost"] == 0
    assert row["apart"] < 1e-5
  narrow, _, wide = loads
  assert narrow["refused"] > 0 and narrow["queued"] <= run.NARROW
  assert wide["refused"] == 0
  end = found["signal"]
  assert end["in_the_air"] == end["answered"] == 32
  assert (end["after_the_signal"], end["exit"]) == (503, 0)


def test_the_short_form(trained, workdir):
  found = run.quick(trained, workdir)
  row = found["rows"][-1]
  assert row["answered"] == 64 and row["lost"] == 0 and row["refused"] > 0
  assert row["queued"] <= 4 and row["apart"] < 1e-5
  end = found["signal"]
  assert (end["answered"], end["after_the_signal"], end["exit"]) == (1, 503, 0)
