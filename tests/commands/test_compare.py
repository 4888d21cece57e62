"""`jaxflow compare`, and `jaxflow train --sweep`."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import tiny

from jaxflow.commands import sweeps
from jaxflow.figures import curves
from jaxflow.metrics.text_tables import with_error
from jaxflow.reports.comparison import short_names

SWEEP = "seed=0,1 optimizer.learning_rate=1e-3,2e-3"
NAMES = [
  f"seed={seed}_optimizer.learning_rate={rate}"
  for seed in (0, 1)
  for rate in ("1e-3", "2e-3")
]


def sweep(folder, *flags, steps=10):
  command = tiny.train_command(folder, "all", "flow_matching")
  short = f"--config.train.steps={steps}", "--config.checkpoint.every=5"
  return tiny.run(*command, *short, *flags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with the runs of a sweep in `all`, and what it printed."""
  path = tmp_path_factory.mktemp("runs")
  result = sweep(path, f"--sweep={SWEEP}")
  assert result.code == 0, result.err
  return path, result.out


def test_sweep_is_the_product(folder):
  path, out = folder
  found = sorted(x.name for x in (path / "all").iterdir() if x.is_dir())
  assert found == sorted(NAMES)
  for name in NAMES:
    config = json.loads((path / "all" / name / "config.json").read_text())
    seed, rate = re.fullmatch(r"seed=(.)_.*=(.*)", name).groups()
    assert config["seed"] == int(seed)
    assert config["optimizer"]["learning_rate"] == float(rate)
  assert "training, samples" in out and "160" in out
  assert (path / "all" / "compare.html").is_file()


def test_sweep_goes_on_and_leaves_what_is_finished(folder, tmp_path):
  path, _ = folder
  shutil.copytree(path / "all", tmp_path / "all")
  shutil.rmtree(tmp_path / "all" / NAMES[3])
  shutil.rmtree(tmp_path / "all" / NAMES[2] / "checkpoints" / "10")
  result = sweep(tmp_path, f"--sweep={SWEEP}")
  assert result.code == 0, result.err
  parts = re.split(r"run \d of 4: .*\n", result.out)[1:]
  assert all("nothing to do" in part for part in parts[:2])
  assert "resumed at step 5" in parts[2] and "from step 0" in parts[3]
  for name in NAMES:
    same = (tiny.rows(x / "all" / name) for x in (path, tmp_path))
    assert next(same) == next(same)


def test_sweep_in_processes(folder, tmp_path, monkeypatch):
  root = pathlib.Path(sweeps.__file__).parents[2]
  monkeypatch.setenv("PYTHONPATH", str(root))
  flags = "--sweep=seed=0,1", "--sweep-processes=2"
  rate = "--config.optimizer.learning_rate=1e-3"
  result = sweep(tmp_path, *flags, rate)
  assert result.code == 0, result.err
  assert "2 of 2" in result.out
  for seed in (0, 1):
    alone = tiny.rows(folder[0] / "all" / NAMES[2 * seed])
    assert tiny.rows(tmp_path / "all" / f"seed={seed}") == alone
    text = (tmp_path / "all" / f"seed={seed}.log").read_text()
    assert "done: " in text


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--sweep=seed"], "'seed' is no field with values"),
    (["--sweep="], "'' is no field with values"),
    (["--sweep=seed=0,,1"], "'seed=0,,1' is no field with values"),
    (["--sweep=seed=0,0"], "'seed=0,0' repeats"),
    (["--sweep=seed=0,1 seed=2"], "'seed=2' repeats"),
    (["--sweep=sed=0,1"], "--config.sed is no field of the config"),
    (["--sweep=seed=0,x"], "--config.seed=x: give a whole number"),
    (["--sweep=seed=0,-1"], "seed=-1: give"),
    (["--sweep=seed='0"], "close the quotes"),
    (["--sweep=seed=0,1", "--sweep_processes=0"], "--sweep_processes=0: give"),
  ],
)
def test_wrong_sweep_begins_nothing(tmp_path, flags, words):
  result = sweep(tmp_path, *flags)
  assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
  assert words in result.err
  assert not (tmp_path / "all").exists()


def test_values_with_brackets_stay_whole():
  found = sweeps._fields("loss.block=(1,4),(2,8) seed=3")
  assert found == [
    [("loss.block", "(1,4)"), ("loss.block", "(2,8)")],
    [("seed", "3")],
  ]


def evaluated(folder, name, value, error):
  """Give a run an evaluation and a bench of known numbers."""
  score = {"value": value, "error": error, "num": 200, "real": 0.25}
  score |= {"real_error": 0.0125, "real_num": 100}
  row = {"nfe": 2, "step": 10, "scores": {"sliced_wasserstein": score}}
  row |= {"samples_per_second": 1234.4}
  (folder / name / "evaluation.json").write_text(json.dumps({"rows": [row]}))
  latency = {"median": 0.00123, "p95": 0.0045, "num": 20}
  cost = {
    **{"model": "run", "method": "flow_matching", "solver": "euler", "nfe": 2},
    **{"batch": 1, "compile_seconds": 1.0, "latency": latency, "memory": 5},
    **{"samples_per_second": 813.0, "flops": 2.5e6, "network": latency},
    **{"overhead": 0.1, "overhead_error": 0.1, "flops_overhead": 0.0},
    **{"operations_overhead": None, "scores": {}},
  }
  (folder / name / "bench.json").write_text(json.dumps({"rows": [cost]}))


def test_comparison(folder, tmp_path, monkeypatch):
  shutil.copytree(folder[0] / "all", tmp_path / "all")
  first, second, third = NAMES[:3]
  evaluated(tmp_path / "all", first, 0.5123, 0.0234)
  evaluated(tmp_path / "all", second, 0.75, 0.1)
  drawn, save = [], curves.save_figure
  monkeypatch.setattr(
    curves, "save_figure", lambda f, path: (drawn.append(f), save(f, path))
  )
  folders = ",".join(str(tmp_path / "all" / x) for x in (first, second, third))
  out = tmp_path / "page.html"
  result = tiny.run("compare", f"--workdirs={folders}", f"--out={out}")
  assert result.code == 0, result.err
  page = out.read_text().replace("<wbr>", "")
  for text in (
    *("0.512 ± 0.023", "0.75 ± 0.10", "0.250 ± 0.013", "200/100", "1,234"),
    *("1.23 (p95 4.5)", "2.5", "160", "sliced_wasserstein ↓", "samples/s ↑"),
  ):
    assert text in result.out.replace("\n", " ") and text in page, text
  assert f"left out of {third}: there is no evaluation.json" in result.out
  assert re.search(r"<td>seed</td><td>0</td><td>0</td><td>1</td>", page)
  axes = {x.get_ylabel(): x for x in drawn[0].axes if x.axison}
  lines = {x.get_label(): x.get_ydata() for x in axes["loss"].lines}
  assert [*lines] == [first, second, third]
  for name, values in lines.items():
    log = tiny.rows(tmp_path / "all" / name)
    np.testing.assert_allclose(values, [float(row["loss"]) for row in log])
  assert out.with_suffix(".png").read_bytes()[1:4] == b"PNG"
  assert page.count('src="data:image/png;base64,') == 1


def test_other_data_are_told(folder, tmp_path):
  for name in ("a", "b"):
    shutil.copytree(folder[0] / "all" / NAMES[0], tmp_path / name)
  file = tmp_path / "b" / "config.json"
  file.write_text(file.read_text().replace('"ring"', '"other"', 1))
  flags = f"--workdirs={tmp_path / 'a'},{tmp_path / 'b'}"
  result = tiny.run("compare", flags)
  assert "scores of other data do not compare" in result.out, result


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--workdirs={0}"], "give 2 or more"),
    (["--workdirs={0},{0}"], "is given twice"),
    (["--workdirs={0},no"], "--workdirs='no' holds no config.json"),
    (["--workdirs={0},{1}", "--out=a.txt"], "ends in .html"),
  ],
)
def test_wrong_comparison(folder, flags, words):
  runs = [folder[0] / "all" / name for name in NAMES]
  result = tiny.run("compare", *(flag.format(*runs) for flag in flags))
  assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
  assert words in result.err


@pytest.mark.parametrize(
  ("value", "error", "text"),
  [
    (17.394, 0.5189, "17.39 ± 0.52"),
    (0.12, 0.0996, "0.12 ± 0.10"),
    (-5.25, 5.27, "-5.2 ± 5.3"),
    (1234.4, 123.4, "1234 ± 123"),
    (-5.43e-4, 2.04e-5, "(-5.43 ± 0.20)e-4"),
    (0.5, None, "0.5"),
    (1.0, 0.0, "1 ± 0"),
    (None, None, ""),
  ],
)
def test_values_have_the_digits_of_their_errors(value, error, text):
  assert with_error(value, error) == text


def test_runs_are_called_by_what_tells_them_apart():
  paths = [pathlib.Path(x) for x in ("runs/a/x", "runs/b/x", "c")]
  assert short_names(paths[:2]) == ["a/x", "b/x"]
  assert short_names(paths[1:]) == ["x", "c"]
