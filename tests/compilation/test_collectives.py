"""What a compiled training step moves between 8 devices.

Under data parallelism only sums: gradients, metrics and other scalars. Under
fsdp also parts of parameters. No point of the batch ever moves, although
MeanFlow and guidance treat the rows of one batch differently.
"""

import collections
import dataclasses
import math
import re

import fast_compile
import jax
import jax.numpy as jnp
import optax
import pytest
import tiny

from jaxflow import rows
from jaxflow.config import default_config, resolve
from jaxflow.methods import METHODS
from jaxflow.parallel import sharding

# 14 x 16 pixels make 7 x 8 tokens. No other size here is a multiple of 7, so
# an array has a multiple of 7 elements exactly if it holds pixels or tokens.
SHAPE, NUM_CLASSES = (14, 16, 4), 10
BATCH = 64
COLLECTIVE = re.compile(
  r" = (.+?) (all-reduce|all-gather|all-to-all|collective-permute"
  r"|collective-broadcast|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)
GUIDED = {"omega": 1.0, "kappa": 0.5, "label_dropout": 0.1}
BOOTSTRAP_GUIDED = {"omega": 1.5, "label_dropout": 0.1}
OPTIONS = {"mean_flow": GUIDED, "shortcut": BOOTSTRAP_GUIDED}
# Whose step keeps the averages that only samplers read.
AVERAGED = "mean_flow"


def first_rows(key):
  """Return the names of the rows whose key no row before them has."""
  seen, names = [], []
  for name, row in METHODS.items():
    if key(row) not in seen:
      seen.append(key(row))
      names.append(name)
  return names


def every_step(steps):
  names = [name + "_guided" * bool(loss) for name, loss in steps]
  return pytest.mark.parametrize(("method", "loss"), steps, ids=names)


# Drifting compares the samples of a group with one another and with data, and a
# group lies on several devices here.
COMPARES_POINTS = {"drifting"}
# Moments of samples that no features stand for are as wide as samples.
WIDE_MOMENTS = {"frechet_distance_loss"}
# With jax 0.12 XLA exchanges activations of its convolutional discriminator in
# place of kernels.
CONVOLUTIONS = {"adversarial_flow"}

# Without the rows that only the data tell from another.
STEPS = [
  (name, {})
  for name in first_rows(
    lambda row: (row.loss, row.flow_map, row.needs, dict(row.config))
  )
  if name not in COMPARES_POINTS
] + list(OPTIONS.items())
# Rows of one loss and as many networks move the same parameters: its times,
# weights and options, seen above, hold none. Guidance adds to a step.
NETWORKS = [
  (name, OPTIONS.get(name, {}))
  for name in first_rows(lambda row: (row.loss, "teacher" in row.needs))
  if name not in COMPARES_POINTS | WIDE_MOMENTS | CONVOLUTIONS
]


# What large networks are trained with.
LARGE = {"remat": True, "dtype": "bfloat16", "dropout": 0.1}


def make_run(method, loss, **network):
  """Make the run of a small DiT; a teacher is guided."""
  path = default_config(method, data="digits", model="dit").path

  def config_of(method, loss, teacher):
    config = default_config(method, data="digits", model="dit")
    config.model.update(depth=1, width=64, num_heads=4, **network)
    config.loss.update(loss)
    config.path = path
    # A loss that takes labels guides its teacher itself.
    if "labels" not in METHODS[method].needs and (
      teacher is not None and "label_dropout" in teacher.loss
    ):
      config.teacher.guidance = 2.0
    return resolve(
      config, shape=SHAPE, num_classes=NUM_CLASSES, teacher=teacher
    )

  teacher = None
  path = METHODS[method].config.get("path", {"name": "linear"})
  if "teacher" in METHODS[method].needs:
    flow = METHODS["flow_matching"].can_teach(METHODS[method])
    teacher = (
      config_of("flow_matching", {"label_dropout": 0.1}, None)
      if flow
      else config_of("easy_consistency", {}, None)
    )
    if "path" in METHODS[method].config:
      with teacher.unlocked():
        teacher.path = METHODS[method].config["path"]
  run = tiny.run_of(config_of(method, loss, teacher))
  # Adam works element by element: it adds nothing here but time to compile.
  clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1e-3))
  vars(run)["_optimizer"] = (optax.constant_schedule(1e-3), clipped)
  for name, learner in run.learners.items():
    run.learners[name] = dataclasses.replace(learner, optimizer=clipped)
  # So do averages that no loss sees: one row shows that they move nothing.
  if method != AVERAGED:
    own = METHODS[method].config.get("ema", {})
    seen = {name: run.plan.emas[name] for name in own}
    vars(run)["plan"] = dataclasses.replace(run.plan, emas=seen)
  return run


def moved(run, mesh):
  """Compile a step as `jaxflow train` does; return the moved shapes by kind."""
  state = run.template(mesh)
  leading = (1, 1, BATCH)
  batch = {
    "data": jax.ShapeDtypeStruct(leading + SHAPE, jnp.float32),
    "cond": jax.ShapeDtypeStruct(leading, jnp.int32),
  }
  if "pairs" in run.model.method.needs:
    batch["noise"] = batch["data"]
  lowered = run.jitted_step(state, mesh).lower(jnp.uint32(0), state, batch)
  program = lowered.compile(compiler_options=fast_compile.OPTIONS).as_text()
  found = collections.defaultdict(set)
  for result, kind in COLLECTIVE.findall(program):
    for dims in re.findall(r"\w+\[([\d,]*)\]", result):
      found[kind].add(tuple(int(d) for d in dims.split(",") if d))
  return dict(found)


def carries_tokens(shape):
  return math.prod(shape) % 7 == 0


def long_axes(shape):
  """Return a shape without axes of one, which sums may keep."""
  return tuple(n for n in shape if n > 1)


@every_step(STEPS)
def test_data_parallel_sums_gradients_and_scalars(method, loss):
  run, mesh = make_run(method, loss), sharding.make_mesh()
  state = run.template(mesh)
  theirs = [own.params for own in state.companions.values()]
  summed = state.params, theirs, state.memory
  params = {long_axes(x.shape) for x in jax.tree.leaves(summed)}
  transposed = {shape[::-1] for shape in params}
  shapes = moved(run, mesh)
  assert set(shapes) == {"all-reduce"}
  found = {long_axes(shape) for shape in shapes["all-reduce"]}
  assert found <= params | transposed | {()}


@every_step(NETWORKS)
def test_fsdp_moves_no_token(method, loss):
  mesh = sharding.make_mesh(data=2, fsdp=4)
  shapes = moved(make_run(method, loss, **LARGE), mesh)
  # A row's time, label and modulation are one vector: where a device has few
  # rows, XLA exchanges these vectors (all-to-all) instead of gathering the
  # kernels, which are larger. It does so for flow matching too.
  parameters_and_conditions = {
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
  }
  assert "all-gather" in shapes
  assert set(shapes) <= parameters_and_conditions
  assert not [s for kind in shapes.values() for s in kind if carries_tokens(s)]


def test_a_split_by_leading_rows_moves_the_batch(monkeypatch):
  """What published code does, and what the tests above must see."""

  def split(tree, block):
    m, k = block
    first = BATCH * k // m
    interval = jax.tree.map(lambda x: x[:first], tree)
    return interval, jax.tree.map(lambda x: x[first:], tree)

  monkeypatch.setattr(rows, "split", split)
  monkeypatch.setattr(rows, "merge", lambda a, b, _: jnp.concatenate([a, b]))
  shapes = moved(make_run("mean_flow", {}), sharding.make_mesh())
  assert any(map(carries_tokens, shapes["collective-permute"]))
