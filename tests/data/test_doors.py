"""The commands on pictures in rows and in tar files."""

import io
import json
import tarfile

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxflow.reading import read_arrays
from jaxflow.runs import encoding

NUM = 24


def pictures():
  """Names, classes and files of pictures, darker ones of class 0."""
  for i in range(NUM):
    pixels = np.full((9, 10, 3), 100 * (i % 2) + i, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    yield f"{i:03d}", "ab"[i % 2], file.getvalue()


def webdataset(folder):
  with tarfile.open(folder / "0.tar", "w") as tar:
    for name, kind, file in pictures():
      for end, content in (("png", file), ("cls", kind.encode())):
        member = tarfile.TarInfo(f"{name}.{end}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def huggingface(folder):
  datasets = pytest.importorskip("datasets")
  _, kinds, files = zip(*pictures(), strict=True)
  images = [{"bytes": x, "path": None} for x in files]
  table = datasets.Dataset.from_dict({"img": images, "label": kinds})
  datasets.disable_progress_bars()
  table.save_to_disk(folder)


@pytest.fixture(params=[webdataset, huggingface], ids=lambda x: x.__name__)
def door(request, tmp_path):
  """Name of a set in a config, and its folder."""
  folder = tmp_path / "set"
  folder.mkdir()
  request.param(folder)
  return request.param.__name__, folder


def test_commands(door, tmp_path):
  name, folder = door
  workdir = tmp_path / "run"
  fields = {
    **{"data.name": name, "data.dir": folder, "data.size": 8},
    "data.test_share": 0.4,
    **{"model.depth": 1, "model.width": 16, "model.num_heads": 2},
    **{"train.steps": 2, "train.batch_size": 8, "train.sample_every": 0},
    **{"optimizer.warmup_steps": 0, "evaluation.num": 4},
  }
  flags = [f"--config.{k}={v}" for k, v in fields.items()]
  run = f"--workdir={workdir}"
  result = tiny.run("train", "--config=images:flow_matching", run, *flags)
  assert result.code == 0, result.err
  stored = json.loads((workdir / "config.json").read_text())["data"]
  assert stored["class_names"] == ["a", "b"]
  result = tiny.run(
    "sample", run, "--label=b", "--num=2", f"--out={tmp_path / 'a.npz'}"
  )
  assert result.code == 0, result.err
  assert read_arrays(tmp_path / "a.npz")["label"].tolist() == [1, 1]
  result = tiny.run(
    "evaluate", run, "--nfe=1", "--config.evaluation.metrics=energy_distance"
  )
  assert result.code == 0, result.err
  assert "energy_distance" in result.out


def test_encode(door):
  name, folder = door
  options = encoding.EncodeOptions(
    data=name, dir=str(folder), autoencoder="none", size=16
  )
  sources = encoding._sources(options)
  assert sum(map(len, sources.values())) == NUM
  assert {(x.shape, x.num_classes) for x in sources.values()} == {
    ((16, 16, 3), 2)
  }
  plain = encoding.EncodeOptions(**{**vars(options), "label": "none"})
  assert {x.num_classes for x in encoding._sources(plain).values()} == {0}
