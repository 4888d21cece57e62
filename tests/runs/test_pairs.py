"""Pairs of noise and data: how they are made, kept, refused and read."""

import json
import os
import pathlib
import shlex
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import tiny
from array_record.python.array_record_module import ArrayRecordReader

from jaxflow import data, paths
from jaxflow.config import default_config, make_plan, registry, resolve
from jaxflow.errors import RunError, UsageError
from jaxflow.files import SUMS
from jaxflow.models import Network
from jaxflow.parallel import hashing, sharding
from jaxflow.runs import pair_generation, restoring
from jaxflow.runs.pair_generation import PairOptions, make_pairs

CLASSES = "data.conditional=True"
OPTIONS = PairOptions(num=100, nfe=4, shard_size=40, batch_size=24, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Run `plain` and `labelled`, and 100 pairs of each in 3 shards."""
  path = tmp_path_factory.mktemp("runs")
  tiny.train(path, "plain", "flow_matching", "train.steps=20")
  flags = CLASSES, "loss.label_dropout=0.5", "train.steps=20"
  tiny.train(path, "labelled", "flow_matching", *flags)
  for name in ("plain", "labelled"):
    make(path / name, path / f"{name}_pairs")
  return path


def make(workdir, out, options=OPTIONS, **changes):
  lines = []
  changes = {"log": lines.append, **changes}
  assert make_pairs(workdir, out, options, **changes)
  return lines


def read(folder):
  return data.Pairs.open(folder).load()


def command(workdir, out, *flags):
  flags = {"--num": 100, "--nfe": 4, "--shard_size": 40, "--seed": 7} | dict(
    flag.split("=") for flag in flags
  )
  return [
    *("pairs", f"--workdir={workdir}", f"--out={out}"),
    *(f"{name}={value}" for name, value in flags.items()),
  ]


def refused(*arguments, words):
  result = tiny.run(*arguments)
  assert result.code == 2, result
  assert result.err.count("\n") == 1
  for word in words:
    assert word in result.err, result.err


def test_pairs_are_described_before_they_are_made(folder):
  found = json.loads((folder / "plain_pairs" / "pairs.json").read_text())
  config = json.loads((folder / "plain" / "config.json").read_text())
  del config["version"], config["seeding"]
  assert found.pop("config") == config
  state = tiny.state_of(folder / "plain")
  expected = hashing.parameters_hash(state.ema["sampling"])
  assert found == {
    "workdir": str(folder / "plain"),
    "step": 20,
    "ema": "sampling",
    "parameters": expected,
    "num": 100,
    "solver": "heun",
    "nfe": 4,
    "guidance": 1.0,
    "guidance_start": None,
    "guidance_end": None,
    "grid": {"name": "uniform"},
    "seed": 7,
    "shape": [2],
    "num_classes": 0,
    "shard_size": 40,
  }


def test_noise_depends_on_seed_and_number_only(folder):
  expected = [
    jax.random.normal(jax.random.fold_in(jax.random.key(7), i), (2,))
    for i in (0, 39, 40, 99)
  ]
  found = read(folder / "labelled_pairs")
  np.testing.assert_array_equal(found.noise[[0, 39, 40, 99]], expected)
  assert len(found) == 100
  assert found.label.tolist() == [i % 8 for i in range(100)]
  assert read(folder / "plain_pairs").label is None


def test_records_are_noise_data_and_label(folder):
  path = folder / "labelled_pairs" / "pairs-00001-of-00003.array_record"
  reader = ArrayRecordReader(str(path))
  record = reader.read([2])[0]  # Pair 42, of class 42 % 8.
  reader.close()
  found = read(folder / "labelled_pairs")
  numbers = np.frombuffer(record[:16], "<f4")
  np.testing.assert_array_equal(numbers[:2], found.noise[42])
  np.testing.assert_array_equal(numbers[2:], found.data[42])
  assert np.frombuffer(record[16:], "<i4").tolist() == [2]


def test_pairs_of_a_gaussian_are_its_flow_map(monkeypatch):
  gaussian = oracle.Gaussian(paths.Linear(), (0.5, -1.0), 0.3)
  network = Network(
    lambda key: {},
    lambda params, x, t, s, cond, key=None: gaussian.velocity(x, t),
  )
  monkeypatch.setitem(registry.KINDS["model"], "mlp", lambda: network)
  config = default_config("flow_matching", data="ring", model="mlp")
  config.model = {"name": "mlp"}
  config = resolve(config, shape=(2,), num_classes=0, teacher=None)
  errors = []
  for nfe in (40, 80):
    options = PairOptions(nfe=nfe)
    draw = pair_generation.make_draw(make_plan(config), options)
    noise, made = draw({}, np.arange(64, dtype=np.uint32), None)
    one = jnp.ones(64)
    expected = gaussian.flow_map(noise, one, 0 * one)
    errors.append(float(jnp.abs(made - expected).max()))
  # Heun's error with 20 steps of 0.05, and a quarter of it with 40.
  assert errors[0] < 5e-3
  assert errors[1] < errors[0] / 3


def test_pairs_are_guided(folder, tmp_path):
  """One Euler step by hand, with the parameters of the average."""
  options = PairOptions(num=16, nfe=1, solver="euler", guidance=3.0)
  make(folder / "labelled", tmp_path / "pairs", options)
  found = read(tmp_path / "pairs")
  mesh = sharding.make_mesh()
  run, state = restoring.load(folder / "labelled", mesh=mesh)
  one, label = jnp.ones(16), jnp.asarray(found.label)
  with_label, without = (
    run.model.network.apply(state.ema["sampling"], found.noise, one, one, c)
    for c in (label, jnp.full_like(label, 8))
  )
  expected = found.noise - (without + 3 * (with_label - without))
  np.testing.assert_allclose(found.data, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["mean_flow", "denoising"])
def test_every_teacher_makes_pairs(tmp_path, method):
  workdir = tiny.train(tmp_path, "run", method, "train.steps=5")
  make(workdir, tmp_path / "pairs", PairOptions(num=8, nfe=4))
  found = read(tmp_path / "pairs")
  assert np.isfinite(found.data).all() and np.abs(found.data).max() < 30


def test_devices_and_batches_do_not_decide(folder, tmp_path, monkeypatch):
  expected = read(folder / "labelled_pairs")
  one = sharding.make_mesh(devices=jax.devices()[:1])
  for name, batch_size in (("one", 24), ("small", 7), ("large", 1000)):
    with monkeypatch.context() as patch:
      if name == "one":
        patch.setattr(sharding, "make_mesh", lambda **axes: one)
      options = PairOptions(**{**vars(OPTIONS), "batch_size": batch_size})
      make(folder / "labelled", tmp_path / name, options)
    found = read(tmp_path / name)
    assert found.noise.tobytes() == expected.noise.tobytes()
    assert found.label.tobytes() == expected.label.tobytes()
    # The same numbers, multiplied in matrices of another size.
    np.testing.assert_allclose(found.data, expected.data, rtol=0, atol=2e-6)


def test_a_killed_run_goes_on_to_the_same_bits(folder, tmp_path, monkeypatch):
  out, write = tmp_path / "pairs", data.Pairs.write

  def killed(self, shard, *arrays):
    if shard == 1:
      (out / ".pairs-00001-of-00003.array_record.1.tmp").write_bytes(b"half")
      raise KeyboardInterrupt
    write(self, shard, *arrays)

  with monkeypatch.context() as patch:
    patch.setattr(data.Pairs, "write", killed)
    with pytest.raises(KeyboardInterrupt):
      make(folder / "plain", out)
  assert len(list(out.glob("*.array_record"))) == 1
  before = tiny.checksums(out)
  refused(
    *train_command(tmp_path, out),
    words=["1 of 3 shards are there", f"--out={out}", "--nfe=4 --guidance=1.0"],
  )
  lines = make(folder / "plain", out)
  assert [line.split(":")[0] for line in lines] == ["shard 2/3", "shard 3/3"]
  # What the killed process was writing is in nobody's way.
  after = {k: v for k, v in tiny.checksums(out).items() if ".tmp" not in k}
  assert after == tiny.checksums(folder / "plain_pairs")
  kept = {k: v for k, v in before.items() if ".tmp" not in k and k != SUMS}
  assert len(kept) == 2 and after.items() >= kept.items()
  assert make(folder / "plain", out) == [
    f"nothing to do: {out} holds all 100 pairs"
  ]


def test_sigterm_keeps_the_shards_that_are_done(folder, tmp_path):
  lines = []

  def log(line):
    lines.append(line)
    os.kill(os.getpid(), signal.SIGTERM)

  out = tmp_path / "pairs"
  arguments = folder / "plain", out, OPTIONS
  assert not make_pairs(*arguments, log=log)
  assert lines[0].startswith("shard 1/3: 40 pairs, ")
  assert "interrupted: 1 of 3 shards" in lines[1]
  make(folder / "plain", out)
  assert tiny.checksums(out) == tiny.checksums(folder / "plain_pairs")


def test_command_makes_pairs(folder, tmp_path):
  result = tiny.run(*command(folder / "plain", tmp_path / "new"))
  assert result.code == 0, result.err
  assert len(result.out.splitlines()) == 3
  assert (
    read(tmp_path / "new").noise.tobytes()
    == read(folder / "plain_pairs").noise.tobytes()
  )


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--nfe=3"], ["--nfe=3", "multiple of 2"]),
    (["--solver=hein"], ["--solver='hein'", "did you mean 'heun'?"]),
    (["--num=0"], ["--num=0: give at least 1"]),
    (["--seed=-1"], ["--seed=-1"]),
    (["--guidance=2"], ["--guidance=2.0", "unconditional"]),
    (["--ema=slow"], ["--ema='slow'", "sampling"]),
    (["--step=7"], ["--step=7", "[20]"]),
    (["--grid=log"], ["sample.grid with nfe=4", "t_min=0"]),
    (["--grid=lg"], ["--grid='lg'", "did you mean 'log'?"]),
  ],
)
def test_wrong_options(folder, tmp_path, flags, words):
  refused(*command(folder / "plain", tmp_path / "new", *flags), words=words)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--nfe=8"], ["--nfe=4, not 8"]),
    (["--num=200"], ["--num=100, not 200"]),
    (["--seed=8"], ["--seed=7, not 8"]),
    (["--solver=midpoint"], ["--solver='heun', not 'midpoint'"]),
    (["--ema=online"], ["--ema='sampling', not 'online'"]),
  ],
)
def test_other_pairs_in_the_folder(folder, flags, words):
  out = folder / "plain_pairs"
  before = tiny.checksums(out)
  refused(*command(folder / "plain", out, *flags), words=words)
  assert tiny.checksums(out) == before


def test_folder_of_another_teacher_or_of_other_files(folder, tmp_path):
  other = tiny.train(
    tmp_path, "other", "flow_matching", "train.steps=20", "seed=1"
  )
  words = [f"--workdir={folder / 'plain'} (parameters ", f"not {other} ("]
  refused(*command(other, folder / "plain_pairs"), words=words)
  words = ["is not empty and holds no pairs.json"]
  refused(*command(other, tmp_path), words=words)
  # A run that has moved is the same teacher.
  shutil.copytree(folder / "plain", tmp_path / "moved")
  lines = make(tmp_path / "moved", folder / "plain_pairs")
  assert lines[0].startswith("nothing to do")


def test_a_student_makes_no_pairs(folder, tmp_path):
  student = tiny.train(
    tmp_path,
    "student",
    "knowledge_distillation",
    f"data.pairs={folder / 'plain_pairs'}",
    "train.steps=5",
  )
  words = ["'knowledge_distillation', whose network is no velocity"]
  refused(*command(student, tmp_path / "new"), words=words)


def test_pairs_that_are_not_finite(folder, tmp_path, monkeypatch):
  def broken(plan, options):
    return lambda params, index, label: [np.full((len(index), 2), np.nan)] * 2

  monkeypatch.setattr(pair_generation, "make_draw", broken)
  with pytest.raises(RunError, match=r"shard 1 of .* is not finite"):
    make(folder / "plain", tmp_path / "pairs")


def train_command(folder, pairs, *flags, method="reflow", workdir="new"):
  flags = (f"data.pairs={pairs}", *flags) if pairs else flags
  return tiny.train_command(folder, workdir, method, *flags)


@pytest.mark.parametrize(
  "method",
  ["reflow", "annealed_reflow", "knowledge_distillation", "insta_flow"],
)
def test_methods_train_on_pairs(folder, tmp_path, method):
  arguments = train_command(
    tmp_path, folder / "plain_pairs", "train.steps=10", method=method
  )
  result = tiny.run(*arguments)
  assert result.code == 0, result.err
  assert "100 pairs, 8 device(s)" in result.out
  saved = json.loads((tmp_path / "new" / "config.json").read_text())
  digest = data.Pairs.open(folder / "plain_pairs").digest
  assert saved["data"]["pairs_digest"] == digest


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_mixed_training_resumes_to_the_bit(folder, tmp_path, share):
  pairs = folder / "plain_pairs" if share else None
  flags = f"data.synthetic_share={share}", "train.steps=40"
  for name, steps in (("whole", [40]), ("parts", [15, 40])):
    for n in steps:
      arguments = train_command(
        *(tmp_path, pairs, *flags, f"train.steps={n}"), workdir=name
      )
      result = tiny.run(*arguments)
      assert result.code == 0, result.err
  states = [tiny.state_of(tmp_path / name) for name in ("whole", "parts")]
  tiny.assert_same_bits(*states)
  if share:
    tiny.train(
      *(tmp_path, "only", "reflow", f"data.pairs={pairs}", "train.steps=40")
    )
    first = [
      jax.tree.leaves(s.params)[0]
      for s in (states[0], tiny.state_of(tmp_path / "only"))
    ]
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_a_teacher_comes_with_its_own_pairs(folder, tmp_path):
  pairs = folder / "plain_pairs"
  flags = f"teacher.workdir={folder / 'plain'}", "train.steps=5"
  arguments = train_command(tmp_path, pairs, *flags, method="slim_flow")
  result = tiny.run(*arguments)
  assert result.code == 0, result.err
  other = tiny.train(
    tmp_path, "other", "flow_matching", "train.steps=20", "seed=1"
  )
  flags = (f"teacher.workdir={other}",)
  refused(
    *train_command(
      tmp_path, pairs, *flags, method="slim_flow", workdir="second"
    ),
    words=[f"made by {folder / 'plain'} (parameters", f"workdir is {other} ("],
  )
  assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
  ("pairs", "flags", "words"),
  [
    (None, [], ["data.pairs=''", "add --config.data.pairs=FOLDER"]),
    ("plain", [], ["plain' holds no pairs.json", "`jaxflow pairs`"]),
    ("labelled_pairs", [], ["its data.num_classes is 8, this run's is 0"]),
    ("plain_pairs", ["data.name=digits"], ["its data.name is 'ring'"]),
    (
      "plain_pairs",
      ["data.synthetic_share=1.5"],
      ["data.synthetic_share=1.5: give a share"],
    ),
  ],
)
def test_pairs_that_do_not_fit(
  folder, tmp_path, monkeypatch, tmp_path_factory, pairs, flags, words
):
  pairs = pairs and folder / pairs
  prepared = tmp_path_factory.getbasetemp() / "prepared"
  monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
  refused(*train_command(tmp_path, pairs, *flags), words=words)
  assert not (tmp_path / "new").exists()


def test_a_generator_of_pairs_trains_on_pairs_only(folder, tmp_path):
  arguments = train_command(
    tmp_path,
    folder / "plain_pairs",
    "data.synthetic_share=0.5",
    method="knowledge_distillation",
  )
  refused(*arguments, words=["data.synthetic_share is no field"])


def test_a_run_keeps_its_pairs(folder, tmp_path):
  pairs = folder / "plain_pairs"
  tiny.train(tmp_path, "new", "reflow", f"data.pairs={pairs}", "train.steps=5")
  make(folder / "plain", tmp_path / "b", PairOptions(num=9, nfe=2))
  refused(
    *train_command(tmp_path, tmp_path / "b"),
    words=["was made with data.pairs_digest="],
  )
  # Where they lie does not matter.
  pathlib.Path(tmp_path / "moved").symlink_to(pairs)
  arguments = train_command(tmp_path, tmp_path / "moved", "train.steps=10")
  result = tiny.run(*arguments)
  assert result.code == 0, result.err


def test_the_command_is_quoted_for_a_shell(folder):
  found = data.Pairs.open(folder / "plain_pairs")
  spaced = {**found.description, "workdir": "runs of mine/'a'"}
  flags = shlex.split(data.Pairs(pathlib.Path("my pairs"), spaced).command())
  assert flags[:2] == ["jaxflow", "pairs"]
  assert {"--workdir=runs of mine/'a'", "--out=my pairs"} < set(flags)


def test_every_flipped_bit_is_found(folder, tmp_path):
  out, draw = tmp_path / "pairs", np.random.default_rng(0)
  shutil.copytree(folder / "plain_pairs", out)
  whole = read(out)
  files = [path for path in sorted(out.iterdir()) if path.name != SUMS]
  assert len(files) == 4
  listed = (out / SUMS).read_text().splitlines()
  assert sorted(line[66:] for line in listed) == [path.name for path in files]
  for path in files:
    for _ in range(15):
      with tiny.flipped_bit(path, draw):
        with pytest.raises(UsageError) as error:
          read(out)
        assert path.name in str(error.value)
  # Killed before the description was there.
  for path in files:
    path.unlink()
  made = data.Pairs.create(
    out, data.Pairs.open(folder / "plain_pairs").description
  )
  assert (made.files.found(), made.files.count) == ([], 3)
  shutil.copytree(folder / "plain_pairs", out, dirs_exist_ok=True)
  # The list itself, cut in its last line by a loss of power.
  (out / SUMS).write_text("\n".join(listed)[:-40])
  assert np.array_equal(read(out).data, whole.data)
  (out / SUMS).unlink()
  assert np.array_equal(read(out).data, whole.data)


def test_damaged_shards_are_named(folder, tmp_path):
  out = tmp_path / "pairs"
  shutil.copytree(folder / "plain_pairs", out)
  name = "pairs-00002-of-00003.array_record"
  shutil.copy(out / "pairs-00001-of-00003.array_record", out / name)
  with pytest.raises(UsageError, match=f"{name} is damaged; delete it"):
    read(out)
  (out / name).write_bytes(b"nothing")
  with pytest.raises(UsageError, match=f"{name} is damaged; delete it"):
    read(out)
