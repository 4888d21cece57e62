"""Pictures: readable in size, small in bytes, and refused in one line."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from jaxflow.errors import UsageError
from jaxflow.figures import (
  read_log,
  save_arrows,
  save_curves,
  save_density,
  save_matrix,
  save_strip,
  save_trajectories,
)

RNG = np.random.default_rng(0)
LOG = {
  "step": np.arange(50.0),
  "loss": RNG.random(50),
  "raw": RNG.random(50),
  "raw_flow": RNG.random(50),
  "gradient_norm": RNG.random(50),
  "samples_per_second": RNG.random(50),
}
EVALUATIONS = {
  "step": np.arange(0.0, 50, 10),
  "sampling/nfe1/fd_digits": RNG.random(5),
  "online/nfe1/fd_digits": RNG.random(5),
  "sampling/nfe1/recall": np.where(np.arange(5) % 2, np.nan, 1.0),
  "seconds": RNG.random(5),
  "share": RNG.random(5),
}
# Noise compresses worst.
PICTURES = {
  "matrix": lambda path: save_matrix(
    RNG.uniform(-1, 1, (2, 10, 64, 64, 3)),
    path,
    rows=["a row with a name"] * 2,
    columns=["b"] * 10,
    captions=[["3.14"] * 10] * 2,
    title="a line above all",
  ),
  "density": lambda path: save_density(
    RNG.standard_normal((5000, 2)), RNG.standard_normal((5000, 2)), path
  ),
  "trajectories": lambda path: save_trajectories(
    RNG.standard_normal((33, 150, 2)), np.linspace(1, 0, 33), path
  ),
  "arrows": lambda path: save_arrows(
    RNG.standard_normal((150, 2)), RNG.standard_normal((150, 2)), path
  ),
  "curves": lambda path: save_curves(LOG, path, evaluations=EVALUATIONS),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_and_their_axes_are_labelled(
  name, tmp_path, monkeypatch
):
  drawn = []
  plain = FigureCanvasAgg.draw

  def note(canvas):
    drawn.append(canvas.figure)
    plain(canvas)

  monkeypatch.setattr(FigureCanvasAgg, "draw", note)
  path = tmp_path / "new" / "picture.png"
  PICTURES[name](path)
  assert path.stat().st_size < 300_000
  with Image.open(path) as picture:
    assert 350 <= picture.width <= 1200
    assert 150 <= picture.height <= 1600
  panels = [axes for axes in drawn[0].axes if axes.axison]
  for axes in panels if name != "matrix" else ():
    assert axes.get_ylabel()
    assert axes.get_xlabel() or axes.get_label() == "<colorbar>"
  assert [x.name for x in path.parent.iterdir()] == ["picture.png"]


def test_matrix_shows_the_images(tmp_path):
  images = -np.ones((1, 2, 4, 4, 1))
  images[0, 1] = 1
  save_matrix(images, tmp_path / "a.png")
  with Image.open(tmp_path / "a.png") as picture:
    pixels = np.asarray(picture.convert("L"))
  black, white = (pixels == 0).mean(), (pixels == 255).mean()
  assert 0.1 < black < 0.5 < white


def test_strip_shows_first_and_last(tmp_path):
  files = []
  for number in range(9):
    files.append(tmp_path / f"{number}.png")
    Image.new("RGB", (64, 64), (28 * number, 0, 0)).save(files[-1])
  save_strip(files, tmp_path / "strip.png", names=list("abcdefghi"), most=3)
  with Image.open(tmp_path / "strip.png") as picture:
    colours = {colour for _, colour in picture.convert("RGB").getcolors(2**16)}
  assert {(0, 0, 0), (112, 0, 0), (224, 0, 0)} <= colours
  assert (28, 0, 0) not in colours


@pytest.mark.parametrize(
  ("draw", "words"),
  [
    (lambda p: save_matrix(np.zeros((2, 3, 4, 4)), p), r"give \[R, C, H, W"),
    (
      lambda p: save_matrix(np.zeros((2, 3, 4, 4, 1)), p, rows=["a"]),
      "rows has 1 entries; give 2",
    ),
    (
      lambda p: save_matrix(np.full((1, 1, 4, 4, 1), np.nan), p),
      "not finite",
    ),
    (lambda p: save_strip([], p, names=[]), "0 pictures"),
    (lambda p: save_density(np.zeros((2, 3)), np.zeros((2, 2)), p), "samples"),
    (lambda p: save_trajectories(np.zeros((2, 3, 2)), [1], p), "1 times"),
    (lambda p: save_arrows(np.zeros((2, 2)), np.zeros((3, 2)), p), "3"),
    (lambda p: save_curves({}, p), "train for longer"),
  ],
)
def test_wrong_arrays(draw, words, tmp_path):
  with pytest.raises(UsageError, match=words):
    draw(tmp_path / "a.png")
  assert not list(tmp_path.iterdir())


def test_log_is_read_with_its_gaps(tmp_path):
  path = tmp_path / "metrics.csv"
  path.write_text("step,loss,raw\n1,0.5,\n2,0.25,3\n")
  log = read_log(path)
  assert log["loss"].tolist() == [0.5, 0.25]
  assert np.isnan(log["raw"][0]) and log["raw"][1] == 3
  path.write_text("step,loss\n1,many\n")
  with pytest.raises(UsageError, match=r"metrics\.csv cannot be read"):
    read_log(path)
  with pytest.raises(UsageError, match=r"no\.csv cannot be read"):
    read_log(tmp_path / "no.csv")
