"""Parts of a config from outside the package: docs/plugins.md, and refusals.

The page's files are the package of the tests. Probes are harmless: code that
would run leaves a file named `flag`.
"""

import dataclasses
import itertools
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import data, metrics, plugins
from jaxflow.config import (
  data_plan,
  default_config,
  load_config,
  make_plan,
  registration,
  registry,
  resolve,
)
from jaxflow.errors import UsageError
from jaxflow.runs.inputs import load_data
from jaxflow.training.optimizers import OptimizerOptions, make_optimizer

PAGE = pathlib.Path(__file__).parents[1] / "docs/plugins.md"
CODE = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METHOD = "my_parts.method:robust_flow"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
  """Nothing is allowed, imported or registered by another test."""
  forget()
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.delenv(plugins.ENVIRONMENT, raising=False)
  yield
  forget()


def forget():
  plugins._ALLOWED.clear()
  plugins._REGISTERED.clear()
  plugins._package.cache_clear()
  for name in [*sys.modules]:
    if name.partition(".")[0] in ("my_parts", "probe", "helpers"):
      del sys.modules[name]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """The files of the page, and a run of them in `runs/mine`."""
  folder = tmp_path_factory.mktemp("plugins")
  for name, code in CODE.findall(PAGE.read_text()):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(code)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "path", [*sys.path])
    result = tiny.run(*command("train", folder, "runs/mine"))
    assert result.code == 0, result.err
  forget()
  return folder


# What each framework's file imports beside this project's own packages.
FRAMEWORKS = {"linen": "flax", "nnx": "flax", "equinox": "equinox"}


@pytest.mark.parametrize("framework", [*FRAMEWORKS, "torch"])
def test_networks_of_other_frameworks(world, framework):
  pytest.importorskip(FRAMEWORKS.get(framework, framework))
  plugins.allow(str(world / "my_parts"))
  name = f"my_parts.{framework}_network:net"
  config = default_config("flow_matching", data="ring", model=name)
  config = resolve(config, shape=(2,), num_classes=0, teacher=None)
  network = make_plan(config).model.network
  params = network.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  # Weights of which none is zero, and the layers that they make.
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params
  )
  leaves = jax.tree.leaves(params)
  by_shape = {x.shape: np.asarray(x, np.float64) for x in leaves}
  xt = rng.normal(size=(5, 2)).astype(np.float32)
  t = np.linspace(0, 1, 5, dtype=np.float32)
  found = network.apply(params, xt, t, t, None)
  if framework == "linen":
    t = np.stack([t, 0 * t], axis=1)  # t and t - s.
  x = np.concatenate([xt, t.reshape(5, -1)], axis=1)
  hidden, bias = (by_shape[shape] for shape in ((64,), (2,)))
  first, second = (
    by_shape[n, m] if (n, m) in by_shape else by_shape[m, n].T
    for n, m in ((x.shape[1], 64), (64, 2))
  )
  h = x @ first + hidden
  h = np.maximum(h, 0) if framework == "equinox" else h / (1 + np.exp(-h))
  np.testing.assert_allclose(found, h @ second + bias, rtol=1e-4, atol=1e-4)


def test_a_linen_network_trains_and_samples_by_name(world):
  flag = "--config.model.name=my_parts.linen_network:net"
  for arguments in (
    command("train", world, "runs/linen", flag, "--config.train.steps=20"),
    command(
      *("sample", world, "runs/linen", f"--out={world / 'x.npz'}"),
      *("--nfe=2", "--num=8"),
    ),
  ):
    result = tiny.run(*arguments)
    assert result.code == 0, result.err
    forget()
  samples = tiny.arrays(world / "x.npz")["samples"]
  assert samples.shape == (8, 2) and np.isfinite(samples).all()


def command(name, folder, run, *flags):
  """Return the page's command line; `train` names the config as well."""
  config = [f"--config={folder / 'my_config.py'}:{METHOD}"]
  return [
    name,
    f"--plugins={folder / 'my_parts'}",
    f"--workdir={folder / run}",
    *(config if name == "train" else []),
    *flags,
  ]


@pytest.fixture
def probe(tmp_path, monkeypatch):
  """Two modules that Python finds; `probe` leaves the flag when imported."""
  flag = tmp_path / "flag"
  (tmp_path / "probe.py").write_text(
    f"import pathlib\npathlib.Path({str(flag)!r}).touch()\n"
    "import dataclasses, subprocess\n"
    "import jax.numpy as jnp\n"
    "import jaxflow\n"
    "from subprocess import Popen\n"
    "called = []\n"
    "def keyword(*, text: str = ''): called.append(text)\n"
    "def positional(text): called.append(text)\n"
    "from jaxflow.models import mlp\n"
    "from jaxflow.times import LogNormal\n"
    "number = 3\n"
    "law = LogNormal(mean=0.0, std=1.0)\n"
    "def wrong(*, data_shape): return 'text'\n"
    "def failing(*, data_shape): return {}['gone']\n"
    "def failing_data(split): return {}['gone']\n"
    "def wrong_data(split): return [1, 2]\n"
    "def third(velocity, xt, t, s):\n"
    "  h = (s - t)[:, None]\n"
    "  a = velocity(xt, t)\n"
    "  b = velocity(xt + h / 3 * a, t + (s - t) / 3)\n"
    "  c = velocity(xt + 2 * h / 3 * b, t + 2 * (s - t) / 3)\n"
    "  return xt + h / 4 * (a + 3 * c)\n"
    "def double(path, t, s, *, power: float = 1.0): return 2 * t**power\n"
    "def squares(num_points, *, t_min, t_max):\n"
    "  return t_min + (t_max - t_min) * jnp.linspace(0, 1, num_points)**2\n"
    "def sign(rate, *, b1, weight_decay):\n"
    "  import optax\n"
    "  return optax.lion(rate, b1=b1, weight_decay=weight_decay)\n"
    "def steps(peak, steps): return lambda n: peak * (n < steps / 2)\n"
  )
  (tmp_path / "helpers.py").write_text(
    f"import pathlib\ndef wipe(): pathlib.Path({str(flag)!r}).touch()\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  return flag


# The page: every command, with parts of another package.


def test_parts_of_a_folder_train_and_resume_bit_for_bit(world):
  half = tiny.run(*command("train", world, "half", "--config.train.steps=20"))
  assert half.code == 0, half.err
  forget()
  resumed = tiny.run(*command("train", world, "half"))
  assert resumed.code == 0 and "resumed at step 20" in resumed.out
  states = [tiny.state_of(world / x) for x in ("runs/mine", "half")]
  tiny.assert_same_bits(*(state.params for state in states))
  assert states[0].params["first"].shape == (3, 32)


def test_parts_of_a_folder_sample_evaluate_and_report(world):
  run = "runs/mine"
  points = world / "points.png"
  for name, *flags in (
    ("sample", "--nfe=20", f"--out={points}"),
    ("evaluate", "--nfe=20"),
    ("report", "--config.evaluation.num=200"),
  ):
    forget()
    flags = flags if name != "report" else []
    result = tiny.run(*command(name, world, run, *flags))
    assert result.code == 0, result.err
  assert points.stat().st_size > 1000
  found = json.loads((world / run / "evaluation.json").read_text())
  assert "my_parts.metric:radius" in json.dumps(found)
  report = (world / run / "report.html").read_text().replace("<wbr>", "")
  assert "my_parts.metric:radius" in report


def test_log_has_the_loss_of_the_page(world):
  """At scale 0.5 the loss is below half of the squared error."""
  for row in tiny.rows(world / "runs/mine"):
    squared, loss = float(row["squared"]), float(row["loss"])
    assert 0 < loss < squared / 2


def test_metric_of_the_page(world):
  """The mean distance from the origin is 3 and 1: the difference is 2."""
  plugins.allow(str(world / "my_parts"))
  angle = np.linspace(0, 6, 50)
  circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
  sets = [
    metrics.SampleSummary(num=50, samples=radius * circle) for radius in (3, 1)
  ]
  names = ["my_parts.metric:radius", "sliced_wasserstein"]
  found = metrics.compare(*sets, names=names)
  assert list(found) == names[::-1]
  np.testing.assert_allclose(found[names[0]].value, 2.0, rtol=1e-6)
  # It is computed only where it is named.
  assert names[0] not in metrics.compare(*sets)


def test_run_comes_again_in_python(world, monkeypatch):
  monkeypatch.syspath_prepend(world)
  with pytest.raises(UsageError, match="'my_parts' is not allowed"):
    jaxflow.load(world / "runs/mine")
  import my_parts.method  # noqa: F401

  assert jaxflow.load(world / "runs/mine").sample(4, nfe=2).shape == (4, 2)


def test_run_can_teach(world):
  """Its network is a velocity: a student is distilled from it."""
  result = tiny.run(
    "train",
    f"--plugins={world / 'my_parts'}",
    f"--config={tiny.config_file(world)}:consistency_distillation",
    f"--workdir={world / 'student'}",
    "--config.data.name=my_parts.data:moons",
    "--config.model.name=my_parts.network:mlp",
    "--config.model.width=32",
    f"--config.teacher.workdir={world / 'runs/mine'}",
    "--config.train.steps=5",
  )
  assert result.code == 0, result.err


# The page: a condition of its own.


def text_command(name, folder, run, *flags):
  """Return a command line on a run of captions."""
  config = [f"--config={folder / 'my_text_config.py'}:flow_matching"]
  return [
    name,
    f"--plugins={folder / 'my_parts'}",
    f"--workdir={folder / run}",
    *(config if name == "train" else []),
    *flags,
  ]


@pytest.fixture(scope="module")
def captions(world):
  """A run of the page's captions, and a file of conditions."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "path", [*sys.path])
    result = tiny.run(*text_command("train", world, "runs/text"))
    assert result.code == 0, result.err
    patch.syspath_prepend(world)
    patch.chdir(world)
    exec((world / "my_conditions.py").read_text(), {})
  forget()
  return world / "captions.npz"


def test_captions_resume_bit_for_bit(world, captions):
  flag = "--config.train.steps=400"
  half = tiny.run(*text_command("train", world, "half_text", flag))
  assert half.code == 0, half.err
  forget()
  resumed = tiny.run(*text_command("train", world, "half_text"))
  assert resumed.code == 0 and "resumed at step 400" in resumed.out
  states = [tiny.state_of(world / x) for x in ("runs/text", "half_text")]
  tiny.assert_same_bits(*(state.params for state in states))


def test_samples_are_where_their_captions_say(world, captions):
  out = world / "places.npz"
  flags = "--nfe=20", f"--out={out}"
  result = tiny.run(
    *text_command("sample", world, "runs/text", *flags, "--num=100"),
    f"--cond_file={captions}",
  )
  assert result.code == 0, result.err
  found = tiny.arrays(out)
  assert found["tokens"][:2].tolist() == [[2, 3, 5, 0], [1, 4, 6, 0]]
  for row, place in ((0, [-2, -2]), (1, [1, 1])):
    mean = found["samples"][row::2].mean(axis=0)
    np.testing.assert_allclose(mean, place, atol=0.4)
  forget()
  # What was written is a file of conditions; as many rows, so many samples.
  again = tiny.run(
    *text_command("sample", world, "runs/text", "--nfe=20"),
    *(f"--cond_file={out}", f"--out={world / 'again.npz'}"),
  )
  assert again.code == 0, again.err
  np.testing.assert_array_equal(
    tiny.arrays(world / "again.npz")["samples"], found["samples"]
  )


def test_captions_in_python(world, captions, monkeypatch):
  monkeypatch.syspath_prepend(world)
  from my_parts.captions import places, tokens

  run = jaxflow.load(world / "runs/text")
  far = run.sample(50, cond=tokens("far right low"), nfe=20)
  np.testing.assert_allclose(far.mean(axis=0), [2, -2], atol=0.4)
  # By default conditions are those of the test split.
  test = places("test").take(np.arange(50))
  samples = run.sample(50, nfe=20)
  assert np.abs(samples - test["data"]).mean() < 0.5
  np.testing.assert_array_equal(
    samples, run.sample(50, cond=test["cond"], nfe=20)
  )
  for given, words in (
    ({"cond": {"tokens": np.zeros((50, 4), int)}}, "cond: mask is missing"),
    ({"labels": 3}, "labels=3: the condition of this run is mask bool"),
  ):
    with pytest.raises(UsageError, match=f"^{words}"):
      run.sample(50, nfe=20, **given)


def test_captions_evaluate_and_report(world, captions):
  for name, *flags in (("evaluate", "--nfe=20"), ("report",)):
    forget()
    result = tiny.run(*text_command(name, world, "runs/text", *flags))
    assert result.code == 0, result.err
  (row,) = json.loads((world / "runs/text/evaluation.json").read_text())["rows"]
  score = row["scores"]["sliced_wasserstein"]
  assert score["value"] < 3 * score["real"]


def test_captions_of_pairs(world, captions, monkeypatch):
  """Pair i has the caption of training sample i, and trains like any other."""
  result = tiny.run(
    *text_command("pairs", world, "runs/text", "--num=100"),
    *("--solver=euler", "--nfe=20", f"--out={world / 'pairs'}"),
  )
  assert result.code == 0, result.err
  monkeypatch.syspath_prepend(world)
  from my_parts.captions import places

  real = places("train").take(np.arange(100))
  pairs = data.Pairs.open(world / "pairs").load(real["cond"])
  jax.tree.map(np.testing.assert_array_equal, pairs.cond, real["cond"])
  assert np.abs(pairs.data - real["data"]).mean() < 0.5
  forget()
  train = text_command("train", world, "reflow", "--config.train.steps=20")
  train[3] = train[3].replace("flow_matching", "reflow")
  result = tiny.run(*train, f"--config.data.pairs={world / 'pairs'}")
  assert result.code == 0, result.err


def test_captions_of_a_teacher(world, captions):
  """A student is distilled from a guided teacher."""
  train = text_command("train", world, "pupil", "--config.train.steps=5")
  train[3] = train[3].replace("flow_matching", "consistency_distillation")
  config = world / "my_text_config.py"
  (world / "my_pupil_config.py").write_text(
    config.read_text().replace("  config.loss.label_dropout = 0.1\n", "")
  )
  train[3] = train[3].replace("my_text", "my_pupil")
  result = tiny.run(
    *train,
    f"--config.teacher.workdir={world / 'runs/text'}",
    "--config.teacher.guidance=2",
    "--config.evaluation.nfe=1",
  )
  assert result.code == 0, result.err


def test_wrong_conditions(world, captions):
  sample = text_command(
    "sample", world, "runs/text", f"--out={world / 'w.npz'}"
  )
  np.savez(world / "wrong.npz", tokens=np.zeros((2, 4), np.int32))
  moons = command("sample", world, "runs/mine", f"--out={world / 'w.npz'}")
  for arguments, words in (
    ([*sample, f"--cond_file={world / 'gone.npz'}"], "no such file"),
    (
      [*sample, f"--cond_file={world / 'wrong.npz'}"],
      "it has tokens: give mask",
    ),
    ([*sample, f"--cond_file={world / 'my_config.py'}"], "give an .npz file"),
    ([*sample, "--label=3"], "--label=3: the condition of this run is"),
    (
      [*moons, f"--cond_file={captions}"],
      "the network of this run declares no",
    ),
  ):
    forget()
    result = tiny.run(*arguments)
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert words in result.err, result.err


def test_line_of_the_page_about_conditions(world, captions):
  train = text_command("train", world, "wrong", "--config.model.length=5")
  result = tiny.run(*train)
  assert result.code == 2
  assert TEXT.findall(PAGE.read_text())[0].strip() in result.err
  forget()
  flags = "--config.data.conditional=False", "--config.loss.label_dropout=0"
  result = tiny.run(*text_command("train", world, "wrong", *flags))
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert "cond None: 'NoneType' object is not subscriptable" in result.err


# What is allowed.


def plan_of(**fields):
  config = default_config("flow_matching", data="ring", model="mlp")
  with config.unlocked():
    for name, value in fields.items():
      config[name] = value
  return make_plan(resolve(config, shape=(2,), num_classes=0, teacher=None))


def refused(**fields):
  with pytest.raises(UsageError) as caught:
    plan_of(**fields)
  return str(caught.value)


def test_lines_of_the_page(world, monkeypatch):
  monkeypatch.syspath_prepend(world)
  names = "my_parts.network:mlp", "os:system"
  lines = [refused(model={"name": name}) for name in names]
  assert TEXT.findall(PAGE.read_text())[1:] == ["\n".join(lines) + "\n"]


STRANGERS = [
  *("os:system", "builtins:exec", "subprocess:Popen", "__main__:run"),
  *("probe:mlp", "helpers:wipe", "numpy:load", "jaxflow.files:write_text"),
  *("probe:", ":probe", "probe:a.b", "probe:a:b", "probe.__init__:x()"),
]


FIELDS = [
  *("method", "times.name", "loss.weight.name", "evaluation.metrics"),
  *("flow_map.solver.name", "ema.sampling.name", "sample.grid.name"),
  *("evaluation.network.name", "sample.sampler.name", "path.name"),
]


@pytest.mark.parametrize(
  ("field", "name"),
  [
    *itertools.product(["model.name"], STRANGERS),
    *itertools.product(FIELDS, ["os:system", "probe:mlp", "helpers:wipe"]),
  ],
)
def test_stranger_runs_nothing(probe, field, name):
  """A workdir that asks for code gets one line, whatever is imported."""
  import helpers  # noqa: F401  A program has it for something else.

  workdir = strangers_run(probe, field, name)
  result = tiny.run("evaluate", f"--workdir={workdir}")
  assert result.code == 2 and result.err.count("\n") == 1, result.err
  assert f"config.json: {field}" in result.err and repr(name) in result.err
  assert not probe.exists()


@pytest.mark.parametrize("name", STRANGERS)
def test_data_of_a_stranger_run_nothing(probe, name):
  """They are opened by commands that need data."""
  config = load_config(strangers_run(probe, "data.name", name))
  with pytest.raises(UsageError, match=f"^data.name={re.escape(repr(name))}: "):
    load_data(data_plan(config), "train")
  assert not probe.exists()


def strangers_run(probe, field, name):
  """Write a workdir whose config has a name in a field."""
  workdir = probe.parent / "stranger"
  workdir.mkdir()
  config = default_config("flow_matching", data="ring", model="mlp")
  config = resolve(config, shape=(2,), num_classes=0, teacher=None)
  values = section = config.to_dict()
  *outer, last = field.split(".")
  for part in outer:
    section = section[part]
  if outer and outer[0] not in ("data", "evaluation", "model"):
    section.clear()
  section[last] = name
  (workdir / "config.json").write_text(json.dumps(values))
  return workdir


def test_optimizer_of_a_stranger(probe):
  for field in ("name", "schedule"):
    options = OptimizerOptions(**{field: "probe:sign"})
    with pytest.raises(UsageError, match=f"^{field}='probe:sign'.*not allowed"):
      make_optimizer(options, steps=2)
  assert not probe.exists()


@pytest.mark.parametrize("by", ["name", "path", "environment", "import"])
def test_package_is_allowed(probe, monkeypatch, by):
  if by == "name":
    plugins.allow(" probe,")
  elif by == "path":
    plugins.allow(str(probe.parent / "probe.py"))
  elif by == "environment":
    monkeypatch.setenv(plugins.ENVIRONMENT, "probe")
  else:
    import probe as module

    assert module.number == 3
  assert probe.exists() == (by == "import")
  assert plan_of(times={"name": "probe:law"}).model is not None
  assert probe.exists()


def test_what_a_package_imports_is_none_of_it(probe):
  plugins.allow("probe")
  for name in ("Popen", "mlp", "jnp", "subprocess"):
    line = refused(model={"name": f"probe:{name}"})
    assert "name what 'probe' defines itself" in line


def test_what_an_allowed_package_may_be_asked_for(probe):
  """docs/trust.md says so: functions of it are called as the config says."""
  plugins.allow("probe")
  assert "makes NoneType" in refused(
    model={"name": "probe:keyword", "text": "x"}
  )
  assert "Network" in refused(model={"name": "probe:positional"})
  with pytest.raises(UsageError, match="returns NoneType"):
    data.load("probe:positional", "test")
  with pytest.raises(UsageError, match=r"^data\.raw_dir='x'.*not read it"):
    data.load("probe:positional", "test", raw_dir="x")
  assert sys.modules["probe"].called == ["x", "test"]


def test_folder_of_a_stored_config_is_not_given(probe):
  plugins.allow("probe")
  config = load_config(strangers_run(probe, "data.data_dir", "/etc"))
  plan = dataclasses.replace(data_plan(config), name="probe:wrong_data")
  assert (plan.data_dir, plan.stored_dir) == (None, "/etc")
  with pytest.raises(UsageError, match=r"if you trust that folder"):
    load_data(plan, "train")


@pytest.mark.parametrize(
  ("names", "words"),
  [
    ("os", "part of Python"),
    ("jaxflow", "names without ':'"),
    ("gone_package", "Python finds no such package"),
    ("./gone_package", "no such folder or file"),
    ("a-b", "give the name of a package"),
    ("my_parts.method", "give the name of a package"),
  ],
)
def test_wrong_plugins(names, words):
  result = tiny.run("methods", f"--plugins={names}")
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert f"--plugins={names!r}: " in result.err and words in result.err


def test_another_package_of_that_name(tmp_path, monkeypatch):
  for name in ("one", "two"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "probe.py").write_text("")
  monkeypatch.syspath_prepend(tmp_path / "one")
  with pytest.raises(UsageError, match="finds another 'probe' first"):
    plugins.allow(str(tmp_path / "two/probe.py"))


# Wrong names, and wrong objects.


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("probe.gone:x", "there is no module 'probe.gone'"),
    ("probe:gone", "has no 'gone'"),
    ("probe:wrng", "did you mean 'wrong'?"),
    ("probe:wrong", "makes str: it must make jaxflow's Network"),
    ("probe:failing", "raises KeyError ('gone'): correct the plug-in"),
    ("probe:number", "makes int: it must make jaxflow's Network"),
    ("probe:third", "makes partial: it must make jaxflow's Network"),
  ],
)
def test_wrong_object(probe, name, words):
  plugins.allow("probe")
  line = refused(model={"name": name})
  assert line.startswith(f"model.name='{name}'") and words in line


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("probe:number", "is of type int: give a function of the split"),
    ("probe:failing_data", "raises KeyError ('gone')"),
    ("probe:wrong_data", "returns list: return a jaxflow.data.Source"),
  ],
)
def test_wrong_data(probe, name, words):
  plugins.allow("probe")
  with pytest.raises(UsageError) as caught:
    data.load(name, "train")
  assert str(caught.value).startswith(f"data.name={name!r} ")
  assert words in str(caught.value)


def test_data_take_no_folder_that_they_do_not_name(world):
  plugins.allow(str(world / "my_parts"))
  with pytest.raises(UsageError, match="remove data"):
    data.load("my_parts.data:moons", "train", data_dir="x")


def test_wrong_method_and_metric(probe):
  plugins.allow("probe")
  with pytest.raises(UsageError, match="is of type int: give a jaxflow"):
    default_config("probe:number", data="ring", model="mlp")
  with pytest.raises(UsageError, match="is of type LogNormal: give a"):
    metrics.direction("probe:law")


def test_module_that_fails(tmp_path, monkeypatch):
  (tmp_path / "probe.py").write_text("raise SystemExit(3)")
  monkeypatch.syspath_prepend(tmp_path)
  plugins.allow("probe")
  line = refused(model={"name": "probe:net"})
  assert line.startswith(
    "model.name='probe:net': importing 'probe' raises SystemExit (3)"
  )


# Other kinds.


def test_solver_counts_its_calls(probe):
  plugins.allow("probe")
  solver = {"name": "probe:third"}
  model = plan_of(flow_map={"name": "ode_step", "solver": solver}).model
  assert (model.solver, model.calls) == ("probe:third", 3)


def test_solver_of_order_three(probe):
  """dx/dt = x over half a unit: halving the step divides the error by 8."""
  plugins.allow("probe")
  solver = registry.make("solver", {"name": "probe:third"}, field="solver")
  errors = []
  for num in (2, 4):
    x, ends = jnp.ones((1, 1)), np.linspace(1.0, 0.5, num + 1)
    for t, s in itertools.pairwise(ends):
      x = solver(lambda x, t: x, x, jnp.full(1, t), jnp.full(1, s))
    errors.append(abs(float(x[0, 0]) - np.exp(-0.5)))
  assert errors[0] / errors[1] == pytest.approx(8, rel=0.4)


def test_function_with_options_and_grid(probe):
  plugins.allow("probe")
  weight = {"name": "probe:double", "power": 2.0}
  made = registry.make("weight", weight, field="weight")
  assert float(made(None, jnp.array(3.0), None)) == 18.0
  assert registry.complete("weight", {"name": "probe:double"}, field="w") == {
    "name": "probe:double",
    "power": 1.0,
  }
  plan = plan_of(
    sample={**plan_of().config.sample, "grid": {"name": "probe:squares"}}
  )
  np.testing.assert_allclose(plan.sample.grid(3), [0.0, 0.25, 1.0])


def test_optimizer_and_schedule(probe):
  """Lion's first step is the rate against the sign, here 0.1 and then 0."""
  plugins.allow("probe")
  options = OptimizerOptions(
    name="probe:sign", schedule="probe:steps", learning_rate=0.1
  )
  schedule, optimizer = make_optimizer(options, steps=4)
  assert [float(schedule(n)) for n in (0, 1, 2)] == pytest.approx([0.1, 0.1, 0])
  params = jnp.array([1.0, -1.0])
  gradient = jnp.array([3.0, -5.0])
  update, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose(update, [-0.1, 0.1], rtol=1e-6)


# Names that programs register.


def test_every_kind_can_be_registered():
  kinds = {*registry.KINDS, *("method", "data", "metric")}
  assert {*registration._TAKEN} == {*kinds, "optimizer", "schedule"}


def test_registered_parts_are_found(world, monkeypatch):
  """A config file pushes a network in; a plug-in gives it to `sample`."""
  (world / "helpers.py").write_text(
    "import jaxflow\nfrom my_parts.network import mlp\n"
    "jaxflow.register('model', 'pushed', mlp)\n"
  )
  monkeypatch.syspath_prepend(world)
  config = tiny.config_file(world)
  config.write_text(
    f"import helpers\n{tiny.CONFIG}".replace(
      'model="mlp"', 'model="pushed"'
    ).replace("width=16, depth=1, time_features=8", "width=16")
  )
  result = tiny.run(
    "train",
    f"--config={config}:flow_matching",
    f"--workdir={world / 'pushed'}",
    "--config.train.steps=5",
  )
  assert result.code == 0, result.err
  forget()
  arguments = [
    "sample",
    f"--workdir={world / 'pushed'}",
    f"--out={world / 'pushed.png'}",
  ]
  alone = tiny.run(*arguments)
  assert alone.code == 2 and "model.name='pushed' is unknown" in alone.err
  result = tiny.run(*arguments, "--plugins=helpers")
  assert result.code == 0, result.err


def test_registered_rows_stand_in_the_tables(world):
  plugins.allow(str(world / "my_parts"))
  from_page = plugins.find("method", METHOD)
  jaxflow.register("method", "robust", from_page)
  jaxflow.register("method", "robust", from_page)  # Once more is no harm.
  assert "robust\n  flow matching that outliers" in tiny.run("methods").out
  config = default_config("robust", data="ring", model="mlp")
  assert (config.loss.scale, config.times.name) == (1.0, "uniform")
  radius = plugins.find("metric", "my_parts.metric:radius")
  jaxflow.register("metric", "radius", radius)
  draw = np.random.default_rng(0).standard_normal
  sets = [metrics.SampleSummary(num=50, samples=draw((50, 2))) for _ in "ab"]
  assert list(metrics.compare(*sets))[-1] == "radius"


@pytest.mark.parametrize(
  ("kind", "name", "value", "words"),
  [
    ("modle", "x", 0, "did you mean 'model'?"),
    ("model", "mlp", 0, "jaxflow has a model of that name"),
    ("data", "digits", 0, "jaxflow has a data of that name"),
    ("law", "a:b", 0, "without ':'"),
    ("law", "", 0, "without ':'"),
    ("method", "x", 0, "a method is a jaxflow.methods.Method"),
  ],
)
def test_wrong_registration(kind, name, value, words):
  with pytest.raises(UsageError) as caught:
    jaxflow.register(kind, name, value)
  assert words in str(caught.value)


def test_name_is_registered_once():
  jaxflow.register("law", "mine", len)
  with pytest.raises(UsageError, match="another law is registered"):
    jaxflow.register("law", "mine", max)
