"""Pages in a real browser, as wide as a telephone and as a screen."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
import tiny

from jaxflow import figures
from jaxflow.reports import html
from jaxflow.reports.bench import bench
from jaxflow.reports.page import report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
  *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
  *("--no-first-run", "--disable-background-networking"),
  *("--disable-component-update", "--disable-sync", "--no-proxy-server"),
  *("--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"),
)
# A page that shows another, and says how it looks.
FRAME = """<!DOCTYPE html><link rel="icon" href="data:,"><pre id="found"></pre>
<iframe id="page" style="width:{0}px;height:800px;border:0"></iframe><script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const page = frame.contentDocument, images = [...page.images];
  frame.contentDocument.querySelectorAll("details").forEach(x => x.open = true);
  document.getElementById("found").textContent = JSON.stringify({{
    width: frame.contentWindow.innerWidth,
    needed: page.documentElement.scrollWidth,
    images: images.length,
    loaded: images.filter(x => x.complete && x.naturalWidth > 0).length,
  }});
}};
frame.src = "page.html";
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
  """Serves a folder and prints nothing."""

  def log_message(self, *args):
    """Print nothing."""


def looked_at(folder, profile, width):
  """Show `folder / page.html`; return how it looks, and the browser's log."""
  (folder / "frame.html").write_text(FRAME.format(width))
  serve = functools.partial(Quiet, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/frame.html"
    done = subprocess.run(
      [BROWSER, *FLAGS, f"--user-data-dir={profile}", address],
      capture_output=True,
      text=True,
      timeout=120,
    )
    server.shutdown()
  found = re.search(r'<pre id="found">({.*?})</pre>', done.stdout)
  assert found, done.stderr[-2000:]
  return json.loads(found[1]), done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  """Return a folder with the report of a run that has all its parts."""
  path = tmp_path_factory.mktemp("page")
  digits = "data.name=digits", "data.conditional=True"
  workdir = tiny.train(
    path,
    *("run", "flow_matching", *digits, "train.steps=10"),
    *("train.sample_every=5", "evaluation.num=20"),
  )
  score = {"value": 0.3, "error": 0.02, "num": 20, "real": 3e-4}
  score |= {"real_error": 1e-5}
  names = "sliced_wasserstein", "accuracy_digits_classifier", "mmd"
  row = {"nfe": 2, "step": 10, "scores": dict.fromkeys(names, score)}
  (workdir / "evaluation.json").write_text(json.dumps({"rows": [row] * 2}))
  bench(workdir, nfe=(1,), batch=(2,), seconds=0, log=lambda line: None)
  shutil.copy(report(workdir, num=20), path / "page.html")
  return path


@pytest.mark.skipif(not BROWSER, reason="needs chromium or google-chrome")
@pytest.mark.parametrize("width", [390, 1280])
def test_report_in_a_browser(page, tmp_path, width):
  found, log = looked_at(page, tmp_path, width)
  assert found["width"] == width
  assert found["needed"] <= width  # Nothing is scrolled sideways.
  assert found["images"] == found["loaded"] >= 5
  assert "CONSOLE" not in log


@pytest.mark.skipif(not BROWSER, reason="needs chromium or google-chrome")
def test_wide_pages_and_broken_ones_are_seen(tmp_path):
  picture = tmp_path / "a.png"
  figures.save_grid(np.zeros((4, 8, 8, 1)), picture)
  text = html.page("a", [html.picture(picture, "a"), "<p>a</p>"])
  for broken, key, value in (
    (text, "loaded", 1),
    (text.replace("base64,iVBO", "base64,iVBX"), "loaded", 0),
    (text.replace("<p>", '<p style="width:900px">'), "needed", 900),
  ):
    (tmp_path / "page.html").write_text(broken)
    found, _ = looked_at(tmp_path, tmp_path / "profile", 390)
    assert found[key] >= value and found["images"] == 1
    assert value != 0 or found[key] == 0
  script = "<script>console.error(1)</script></body>"
  (tmp_path / "page.html").write_text(text.replace("</body>", script))
  _, log = looked_at(tmp_path, tmp_path / "profile", 390)
  assert "CONSOLE" in log
