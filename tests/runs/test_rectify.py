"""Rounds of ReFlow: what they train on, and that they go on anywhere."""

import json
import os
import pathlib
import signal

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import data
from jaxflow.config import presets
from jaxflow.runs import rounds
from jaxflow.runs.pair_generation import PairOptions
from jaxflow.runs.rounds import Rounds, rectify

OPTIONS = PairOptions(num=64, nfe=2, shard_size=64)


def config_of(folder, method="reflow", **train):
  name = f"{tiny.config_file(folder)}:{method}"
  config = presets.load_file(name)
  config.train.update(steps=10, sample_every=0, **train)
  return config


def command(folder, *flags, method="reflow", workdir="new"):
  return [
    *("rectify", f"--config={tiny.config_file(folder)}:{method}"),
    *(f"--workdir={folder / workdir}", "--config.train.steps=10"),
    *("--rounds=2", "--num=64", "--nfe=2", "--shard_size=64"),
    *flags,
  ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with two rounds, `new`, and a teacher, `plain`."""
  path = tmp_path_factory.mktemp("rounds")
  tiny.train(path, "plain", "flow_matching", "train.steps=10")
  result = tiny.run(*command(path))
  assert result.code == 0, result.err
  return path


def saved(workdir):
  return json.loads((workdir / "config.json").read_text())


def test_every_round_follows_on_the_last(folder):
  workdir = folder / "new"
  assert {p.name for p in workdir.iterdir()} == {
    *("rectify.json", "round_0", "pairs_1", "round_1", "pairs_2", "round_2")
  }
  first = saved(workdir / "round_0")
  assert (first["data"]["pairs"], first["data"]["synthetic_share"]) == ("", 0)
  for number, share in ((1, 0.4), (2, 0.9)):
    previous = str(workdir / f"round_{number - 1}")
    config = saved(workdir / f"round_{number}")
    assert config["data"]["synthetic_share"] == pytest.approx(share)
    assert config["data"]["pairs"] == str(workdir / f"pairs_{number}")
    assert config["init"] == {
      **{"workdir": previous, "ema": "sampling", "step": 10},
    }
    pairs = data.Pairs.open(workdir / f"pairs_{number}")
    assert pairs.description["workdir"] == previous
    assert pairs.description["seed"] == number - 1


def test_round_0_is_flow_matching(folder):
  """Return the mean losses of both, of 10 batches with noise of their own."""
  losses = [
    float(tiny.rows(workdir)[0]["loss"])
    for workdir in (folder / "new" / "round_0", folder / "plain")
  ]
  # Means over 160 samples of a loss of 1.2 +- 1 each: standard error 0.08.
  assert abs(losses[0] - losses[1]) < 0.4


def test_a_finished_command_does_nothing(folder):
  before = tiny.checksums(folder / "new")
  result = tiny.run(*command(folder))
  assert result.code == 0, result.err
  assert result.out.count("nothing to do") == 5
  assert tiny.checksums(folder / "new") == before


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_command_goes_on(folder, tmp_path, at):
  """Ctrl-C amid round 0 or 1; then killed before the pairs of round 2."""
  config = config_of(tmp_path, log_every=5)
  arguments = config, tmp_path / "new", Rounds(rounds=2), OPTIONS
  lines = []

  def log(line):
    lines.append(line)
    half = [x for x in lines if x.startswith("step  5/10")]
    if line.startswith("step  5/10") and len(half) == at:
      os.kill(os.getpid(), signal.SIGTERM)

  assert not rectify(*arguments, log=log)
  assert "interrupted: saved step 5" in lines[-1]
  with pytest.MonkeyPatch.context() as patch:
    write = data.Pairs.write

    def killed(pairs, *shard):
      if pairs.folder.name == "pairs_2":
        raise KeyboardInterrupt
      write(pairs, *shard)

    patch.setattr(data.Pairs, "write", killed)
    with pytest.raises(KeyboardInterrupt):
      rectify(*arguments, log=lines.append)
  assert not (tmp_path / "new" / "round_2").exists()
  assert rectify(*arguments, log=lines.append)
  for number in range(3):
    tiny.assert_same_bits(
      tiny.state_of(tmp_path / "new" / f"round_{number}"),
      tiny.state_of(folder / "new" / f"round_{number}"),
    )


def test_a_teacher_takes_the_place_of_round_0(folder, tmp_path):
  flags = f"--teacher={folder / 'plain'}", "--rounds=1"
  result = tiny.run(*command(tmp_path, *flags))
  assert result.code == 0, result.err
  workdir = tmp_path / "new"
  assert not (workdir / "round_0").exists()
  config = saved(workdir / "round_1")
  assert config["init"]["workdir"] == str(folder / "plain")
  assert config["data"]["synthetic_share"] == 0.9


def test_rounds_make_paths_straight(tmp_path):
  """One Euler step and eight land nearer to each other after a round."""
  update = {"width": 64, "depth": 2, "time_features": 16}
  config = config_of(tmp_path)
  config.model.update(update)
  config.train.update(steps=500, batch_size=128, log_every=250)
  config.train.steps_per_dispatch = 50
  config.checkpoint.every = 250
  config.optimizer.learning_rate = 3e-3
  once = Rounds(rounds=1, end=1.0)
  options = PairOptions(num=2048, nfe=20)
  workdir = tmp_path / "new"
  assert rectify(config, workdir, once, options, log=lambda x: None)
  gaps = []
  for number in (0, 1):
    run = jaxflow.load(workdir / f"round_{number}")
    one, eight = (run.sample(500, nfe=n) for n in (1, 8))
    gaps.append(float(jnp.sqrt(np.square(one - eight).sum(1)).mean()))
  # One step of a flow on independent noise ends at the mean of the ring, at a
  # distance of about 1.
  assert gaps[0] > 0.7
  assert gaps[1] < gaps[0] / 2


@pytest.mark.parametrize(
  ("method", "flags", "words"),
  [
    ("flow_matching", [], ["'flow_matching' trains no velocity on", "reflow"]),
    ("insta_flow", [], ["'insta_flow' trains no velocity", "annealed_reflow"]),
    ("reflow", ["--rounds=0"], ["--rounds=0: give at least 1"]),
    ("reflow", ["--start=-1"], ["--start=-1.0: give a share"]),
    ("reflow", ["--nfe=3"], ["--nfe=3", "multiple of 2"]),
    ("reflow", ["--guidance=2"], ["--guidance=2.0", "unconditional"]),
    ("reflow", ["--solver=rk"], ["--solver='rk'"]),
    (
      "reflow",
      ["--config.data.pairs=x"],
      ["--config.data.pairs: this command sets it", "leave it out"],
    ),
    (
      "reflow",
      ["--config.init.workdir=x"],
      ["init.workdir: this command sets it"],
    ),
    (
      "reflow",
      ["--config.train.batch_size=20"],
      ["batch_size=20", "use 16 or 24"],
    ),
    ("reflow", ["--config.optimizer.name=s"], ["optimizer.name='s'"]),
    ("reflow", ["--teacher=no"], ["--teacher='no' holds no config.json"]),
    (
      "reflow",
      ["--teacher=PLAIN", "--config.model.width=24"],
      ["model.width is 16 there, 24 here", "round by round"],
    ),
    (
      "reflow",
      ["--teacher=PLAIN", "--config.data.conditional=True"],
      ["its data.num_classes is 0, this run's is 8"],
    ),
  ],
)
def test_wrong_rounds(folder, tmp_path, method, flags, words):
  flags = [x.replace("PLAIN", str(folder / "plain")) for x in flags]
  result = tiny.run(*command(tmp_path, *flags, method=method))
  assert result.code == 2, result
  assert result.err.count("\n") == 1
  for word in words:
    assert word in result.err
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", ["digits", "ring"])
@pytest.mark.parametrize("method", ["reflow", "annealed_reflow"])
def test_shipped_configs_can_be_rectified(file, method):
  """They name pairs and first weights, which are those of one round."""
  path = pathlib.Path(__file__).parents[2] / "configs" / f"{file}.py"
  config = presets.load_file(f"{path}:{method}")
  assert config.data.pairs and config.init.workdir
  rounds._check(config, Rounds(), PairOptions())


def test_other_rounds_in_the_workdir(folder, tmp_path):
  for flag, words in (
    ("--rounds=3", "rounds=2, not 3"),
    ("--end=0.8", "end=0.9, not 0.8"),
    ("--num=65", "num=64, not 65"),
  ):
    result = tiny.run(*command(folder, flag))
    assert result.code == 2 and words in result.err
  (tmp_path / "new").mkdir()
  (tmp_path / "new" / "thesis.txt").write_text("text")
  result = tiny.run(*command(tmp_path))
  assert result.code == 2 and "holds no rectify.json" in result.err
