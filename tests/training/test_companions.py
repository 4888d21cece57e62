"""Two players in one training step, against their arithmetic written out.

The tiny game: data are numbers x, the generator makes fake = a + 0 z of noise
z, the discriminator says D(y) = b y. For the hinge with |logits| < 1,

  L_D = mean(1 - b x) + mean(1 + b fake),   dL_D / db = fake - mean(x)
  L_G = mean (fake - x)^2 - w b fake,       dL_G / da = 2 (a - mean(x)) - w b
"""

import dataclasses
import functools
import hashlib
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxflow import flow_maps, losses, models, paths, times
from jaxflow.config import default_config, resolve
from jaxflow.config import flags as config_flags
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError
from jaxflow.losses import adversarial
from jaxflow.methods import METHODS
from jaxflow.parallel import sharding
from jaxflow.training import checkpoints, ema, layers
from jaxflow.training.companions import (
  Learner,
  Rhythm,
  companion_loss_fn,
  count_updates,
)
from jaxflow.training.state import Companion, init_state
from jaxflow.training.step import make_loss_fn, make_train_step

WEIGHT, RATE, ITS_RATE = 0.5, 0.05, 0.03
PATH = paths.Linear()
# A decay that depends on the number of updates.


class Half(ema.Law):
  """`beta_k = 0.5 / k`."""

  def gain(self, k):
    return 1 - 0.5 / k


LAWS = {"half": Half()}
A, B = 0.3, 0.2
DEVICE = jax.devices()[0]


def apply_fn(params, xt, t, s, cond, key=None):
  """Return the velocity whose jump from t = 1 to 0 ends at `params`."""
  return xt - params


def judge(params, frozen):
  return {"discriminator": lambda x, cond: params * x[:, 0]}


def companion_of(state, name="discriminator"):
  return state.companions[name]


def game(
  *,
  start=0,
  turns="alternate",
  ratio=1,
  optimizer=None,
  play=True,
  **options,
):
  """Return the jitted step of the tiny game, and its first state."""
  optimizer = optimizer or optax.sgd(RATE)
  loss_fn = make_loss_fn(
    METHODS["insta_flow"],
    apply_fn,
    {
      "path": PATH,
      "flow_map": flow_maps.average_velocity,
      "criterion": adversarial.hinge,
      "adversarial_weight": WEIGHT if play else 0.0,
    }
    | options,
    companion_fns={"discriminator": judge} if play else None,
  )
  learner = Learner(
    loss_fn=companion_loss_fn(
      losses.discriminator_loss,
      judge,
      lambda state: flow_maps.average_velocity(
        functools.partial(apply_fn, state.params)
      ),
      path=PATH,
      sample_times=times.Constant(t=1.0),
      criterion=adversarial.hinge,
    ),
    optimizer=optax.sgd(ITS_RATE),
    rhythm=Rhythm(start=start, turns=turns, ratio=ratio),
  )
  learners = {"discriminator": learner} if play else {}
  state = init_state(
    jnp.float32(A),
    optimizer,
    LAWS,
    companions={k: x.init(jnp.float32(B)) for k, x in learners.items()},
  )
  step = make_train_step(loss_fn, optimizer, LAWS, seed=0, learners=learners)
  return jax.jit(step), state


def batches(*means, rows=4):
  """One step a mean, one micro-batch each; the rows differ."""
  shape = (len(means), 1, rows, 1)
  spread = np.linspace(-0.1, 0.1, rows)[None, None, :, None]
  data = np.reshape(means, (-1, 1, 1, 1)) + spread
  noise = np.random.default_rng(0).standard_normal(shape)
  return {"data": jnp.float32(data), "noise": jnp.float32(noise)}


MEANS = (0.5, 0.4, 0.7, 0.6, 0.2)


def by_hand(means, *, start, turns, ratio=1):
  """Return the parameters after each step, and the generator's average."""
  a, b, average, updates = A, B, A, 0
  for step, x in enumerate(means):
    on = step >= start
    moves = not on or turns == "joint" or step % (1 + ratio) == 0
    its = on and (turns == "joint" or not moves)
    slope_a = 2 * (a - x) - (WEIGHT * b if on else 0)
    slope_b = a - x
    if moves:
      a -= RATE * slope_a
      updates += 1
      decay = 0.5 / updates
      average = decay * average + (1 - decay) * a
    if its:
      b -= ITS_RATE * slope_b
  return a, b, average


@pytest.mark.parametrize("turns", ["alternate", "joint"])
@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_two_players_follow_their_arithmetic(start, turns):
  step, state = game(start=start, turns=turns)
  state, metrics = step(state, batches(*MEANS))
  a, b, average = by_hand(MEANS, start=start, turns=turns)
  assert float(state.params) == pytest.approx(a, rel=1e-5)
  assert float(companion_of(state).params) == pytest.approx(b, rel=1e-5)
  assert float(state.ema["half"]) == pytest.approx(average, rel=1e-5)
  rhythm = Rhythm(start=start, turns=turns)
  mine, theirs = count_updates(len(MEANS), {"discriminator": rhythm})
  assert int(state.updates) == mine
  assert int(state.step) == len(MEANS) and theirs["discriminator"] > 0
  assert int(metrics["skipped"]) == 0


@pytest.mark.parametrize("start", [0, 2])
def test_steps_to_each_of_the_student(start):
  step, state = game(start=start, ratio=3)
  state, _ = step(state, batches(*MEANS, *MEANS))
  a, b, _ = by_hand(2 * MEANS, start=start, turns="alternate", ratio=3)
  assert float(state.params) == pytest.approx(a, rel=1e-5)
  assert float(companion_of(state).params) == pytest.approx(b, rel=1e-5)
  rhythm = Rhythm(start=start, ratio=3)
  mine, _ = count_updates(2 * len(MEANS), {"discriminator": rhythm})
  assert int(state.updates) == mine


def test_updates_of_several_companions():
  """Counted one by one, in rounds of the largest ratio."""
  rhythms = {
    "often": Rhythm(ratio=4),
    "rarely": Rhythm(start=7, ratio=1),
    "always": Rhythm(start=13, turns="joint"),
    "late": Rhythm(start=40, ratio=6),
  }
  for steps in (3, 30, 61):
    found = dict.fromkeys(["student", *rhythms], 0)
    for step in range(steps):
      place = step % (7 if step >= 40 else 5)
      found["student"] += place == 0
      found["often"] += 1 <= place <= 4
      found["rarely"] += step >= 7 and place == 1
      found["always"] += step >= 13
      found["late"] += step >= 40 and place > 0
    mine = found.pop("student")
    assert count_updates(steps, rhythms) == (mine, found)


def test_two_companions_learn_as_they_would_alone():
  """Each at its places, from draws of its own."""
  rhythms = {"a": Rhythm(ratio=2), "b": Rhythm(start=4, ratio=1)}

  def loss_fn(params, state, key, batch):
    del state, key
    return (params - batch["data"][:, 0]) ** 2, {}

  learners = {
    name: Learner(loss_fn=loss_fn, optimizer=optax.sgd(0.1), rhythm=rhythm)
    for name, rhythm in rhythms.items()
  }
  state = init_state(
    jnp.float32(0),
    optax.sgd(0.1),
    {},
    companions={k: x.init(jnp.float32(0)) for k, x in learners.items()},
  )
  step = make_train_step(loss_fn, optax.sgd(0.1), {}, seed=0, learners=learners)
  state, metrics = jax.jit(step)(state, batches(*MEANS, *MEANS))
  expected = {"student": 0.0, "a": 0.0, "b": 0.0}
  for k, mean in enumerate(2 * MEANS):
    place = k % 3
    movers = ["student"] if place == 0 else ["a"]
    movers += ["b"] if k >= 4 and place == 1 else []
    for name in movers:
      expected[name] += 0.2 * (mean - expected[name])
  assert float(state.params) == pytest.approx(expected["student"], rel=1e-5)
  for name in learners:
    own = float(state.companions[name].params)
    assert own == pytest.approx(expected[name], rel=1e-5)
    assert np.isfinite(metrics[f"{name}_loss"])


def test_metrics_are_means_over_the_turns_that_measured_them():
  step, state = game()
  _, metrics = step(state, batches(0.5, 0.4, 0.7))
  a, b = A, B
  raws, fakes = [], []
  for k, x in enumerate((0.5, 0.4, 0.7)):
    if k == 1:
      assert float(metrics["fake_logit"]) == pytest.approx(a * b, rel=1e-5)
      assert float(metrics["real_logit"]) == pytest.approx(b * x, rel=1e-5)
      slope = float(metrics["discriminator_gradient_norm"])
      assert slope == pytest.approx(abs(a - x), rel=1e-4)
      b -= ITS_RATE * (a - x)
      continue
    raws.append((a - x) ** 2 + np.var(np.linspace(-0.1, 0.1, 4)))
    fakes.append(-a * b)
    a -= RATE * (2 * (a - x) - WEIGHT * b)
  assert float(metrics["raw"]) == pytest.approx(np.mean(raws), rel=1e-4)
  assert float(metrics["adversarial"]) == pytest.approx(
    np.mean(fakes), rel=1e-4
  )


@pytest.mark.parametrize("turns", ["alternate", "joint"])
def test_before_its_start_there_is_no_discriminator(turns):
  optimizer = optax.adam(1e-2)
  alone, plain = game(play=False, optimizer=optimizer)
  together, state = game(start=4, turns=turns, optimizer=optimizer)
  plain, _ = alone(plain, batches(*MEANS[:4]))
  after, metrics = together(state, batches(*MEANS[:4]))
  for field in ("params", "opt_state", "ema", "updates"):
    tiny.assert_same_bits(getattr(after, field), getattr(plain, field))
  tiny.assert_same_bits(after.companions, state.companions)
  for name in ("adversarial", "discriminator_loss", "fake_logit"):
    assert np.isnan(metrics[name])
  assert np.isfinite(metrics["raw"])


def test_the_one_whose_turn_it_is_not_keeps_everything():
  step, state = game(optimizer=optax.adam(1e-2))
  first, _ = step(state, batches(0.5))
  tiny.assert_same_bits(first.companions, state.companions)
  second, _ = step(first, batches(0.4))
  for field in ("params", "opt_state", "ema", "updates"):
    tiny.assert_same_bits(getattr(second, field), getattr(first, field))
  assert float(companion_of(second).params) != float(companion_of(first).params)
  assert int(second.opt_state[0].count) == 1


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_joint_step_is_skipped_for_both(player):
  def distance(a, b):
    del b  # Only the discriminator sees the data.
    return jnp.full(len(a), jnp.nan if player == "generator" else 0.0)

  step, state = game(turns="joint", distance=distance)
  bad = batches(0.5)
  if player == "discriminator":
    bad["data"] = bad["data"].at[0, 0, 1, 0].set(jnp.nan)
  after, metrics = step(state, bad)
  for field in ("params", "opt_state", "ema", "updates", "companions"):
    tiny.assert_same_bits(getattr(after, field), getattr(state, field))
  assert int(after.skipped) == int(metrics["skipped"]) == 1


def test_skipped_turn_of_the_discriminator_changes_counters_only():
  step, state = game()
  bad = batches(0.5, 0.4)
  bad["data"] = bad["data"].at[1, 0, 2, 0].set(jnp.inf)
  first, _ = step(state, jax.tree.map(lambda x: x[:1], bad))
  both, metrics = step(state, bad)
  for field in ("params", "opt_state", "ema", "updates", "companions"):
    tiny.assert_same_bits(getattr(both, field), getattr(first, field))
  assert int(both.skipped_in_row) == int(metrics["skipped"]) == 1


def test_accumulation_equals_one_batch():
  for turns in ("alternate", "joint"):
    step, state = game(turns=turns)
    batch = batches(*MEANS, rows=8)
    whole, _ = step(state, batch)
    parts = jax.tree.map(lambda x: x.reshape(len(MEANS), 4, 2, 1), batch)
    split, _ = step(state, parts)
    np.testing.assert_allclose(whole.params, split.params, rtol=1e-5)
    np.testing.assert_allclose(
      companion_of(whole).params, companion_of(split).params, rtol=1e-5
    )


def test_checkpoints_keep_the_name_of_the_discriminator(tmp_path):
  """Those of earlier versions open: it is stored as "adversary"."""
  _, state = game()
  store = checkpoints.Checkpoints(tmp_path, keep=1)
  store.save(0, state, None)
  store.wait()
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(DEVICE)
    ),
    state,
  )
  found, _ = store.restore(shapes)
  store.close()
  tiny.assert_same_bits(found, state)
  assert b"adversary" in (tmp_path / "0" / "state" / "_METADATA").read_bytes()


def test_one_program_for_all_turns():
  step, state = game(start=2)
  for mean in MEANS:
    state, _ = step(state, batches(mean))
  assert step._cache_size() == 1


@pytest.mark.parametrize("turns", ["alternate", "joint"])
def test_a_move_is_traced_once(turns):
  """Alone before the start, and in its turn or with the other after it."""
  traces = []

  def distance(a, b):
    traces.append(None)
    return jnp.sum((a - b) ** 2, axis=1)

  step, state = game(start=2, turns=turns, distance=distance)
  step.lower(state, batches(0.5))
  assert len(traces) == 2


POINTS = models.mlp(data_shape=(2,), width=32, depth=1, time_features=8)


def two_dimensional(*, frozen=None, features=None, **changes):
  """Return a generator that sees data through a discriminator only."""
  if features is None:
    network = models.conv_discriminator(data_shape=(2,), width=32, depth=1)
  else:
    network = models.projected_discriminator(
      data_shape=(2,), features=features, width=32
    )

  def discriminator_fn(params, frozen):
    seen = frozen.get("features")
    bound = functools.partial(network.apply, params, frozen=seen)
    return {"discriminator": bound}

  options = {
    "path": PATH,
    "flow_map": flow_maps.average_velocity,
    "criterion": adversarial.logistic,
    "reconstruction_weight": 0.0,
    "adversarial_weight": 1.0,
  }
  loss_fn = make_loss_fn(
    METHODS["insta_flow"],
    POINTS.apply,
    options,
    companion_fns={"discriminator": discriminator_fn},
  )
  learner = Learner(
    loss_fn=companion_loss_fn(
      losses.discriminator_loss,
      discriminator_fn,
      lambda state: flow_maps.average_velocity(
        functools.partial(POINTS.apply, state.params)
      ),
      path=PATH,
      sample_times=times.Constant(t=1.0),
      criterion=adversarial.logistic,
    ),
    optimizer=optax.adam(2e-3, b1=0.5),
    rhythm=Rhythm(**changes),
  )
  learners = {"discriminator": learner}
  its_params = network.init(jax.random.key(1))
  optimizer = optax.adam(1e-3, b1=0.5)
  state = init_state(
    POINTS.init(jax.random.key(0)),
    optimizer,
    {},
    companions={k: x.init(its_params) for k, x in learners.items()},
    frozen=frozen,
  )
  step = make_train_step(loss_fn, optimizer, {}, seed=0, learners=learners)
  return step, state


def shifted(steps, rows, seed):
  """Draw data ~ N((2, -1), 0.3^2), and independent noise."""
  generator = np.random.default_rng(seed)
  data = generator.standard_normal((steps, 1, rows, 2))
  noise = generator.standard_normal((steps, 1, rows, 2))
  mean = np.array([2.0, -1.0]).reshape(1, 1, 1, 2)
  return {"data": jnp.float32(mean + 0.3 * data), "noise": jnp.float32(noise)}


@pytest.mark.parametrize("turns", ["alternate", "joint"])
def test_adversarial_training_moves_a_generator_to_the_data(turns):
  step, state = two_dimensional(turns=turns)
  jump = flow_maps.average_velocity(
    functools.partial(POINTS.apply, state.params)
  )
  noise = jax.random.normal(jax.random.key(5), (1000, 2))
  ones = jnp.ones(1000)
  before = jump(noise, ones, 0 * ones, None)
  state, _ = jax.jit(step)(state, shifted(1200, 64, 0))
  jump = flow_maps.average_velocity(
    functools.partial(POINTS.apply, state.params)
  )
  after = jump(noise, ones, 0 * ones, None)
  goal = np.array([2.0, -1.0])
  assert np.linalg.norm(np.mean(before, 0) - goal) > 1.5
  assert np.linalg.norm(np.mean(after, 0) - goal) < 0.4
  assert np.std(after, axis=0).max() < 0.7


def test_features_are_inputs_and_keep_their_values():
  features = models.conv_features(data_shape=(2,), width=16, depth=2)
  frozen = {"features": features.init(jax.random.key(2))}
  step, state = two_dimensional(features=features, frozen=frozen, turns="joint")
  train, batch = jax.jit(step), shifted(2, 16, 0)
  after, _ = train(state, batch)
  tiny.assert_same_bits(after.frozen, state.frozen)
  other = jax.tree.map(lambda x: 2 * x, frozen)
  changed, _ = train(dataclasses.replace(state, frozen=other), batch)
  differ = jax.tree.map(
    lambda a, b: bool((a != b).any()), changed.params, after.params
  )
  assert any(jax.tree.leaves(differ))


@pytest.mark.parametrize("turns", ["alternate", "joint"])
def test_same_training_on_one_and_on_eight_devices(turns):
  step, state = two_dimensional(turns=turns, start=2)
  batch = shifted(6, 64, 3)
  results = {}
  for name, axes in {
    "one": {"data": 1},
    "replicated": {"data": 8},
    "fsdp": {"data": 2, "fsdp": 4},
  }.items():
    devices = jax.devices()[: math.prod(axes.values())]
    mesh = sharding.make_mesh(**axes, devices=devices)
    shardings = sharding.parameter_shardings(state, mesh)
    start = jax.device_put(jax.tree.map(np.array, state), shardings)
    train = jax.jit(step, out_shardings=(shardings, None))
    given = jax.device_put(batch, sharding.batch_sharding(mesh))
    end, _ = train(start, given)
    results[name] = jax.device_get((end.params, companion_of(end).params))
  for name in ("replicated", "fsdp"):
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      results["one"],
      results[name],
    )


FLAGS = (
  "teacher.init_student=False",
  "discriminator.network.name=conv",
  "discriminator.start=0.0",
  "loss.distance.name=features",
  "features.network.name=run",
  "checkpoint.every=5",
)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
  """Return a trained teacher on the path of the student."""
  folder = tmp_path_factory.mktemp("runs")
  path = "path.name=variance_exploding"
  return tiny.train(folder, "flow", "flow_matching", path)


def test_features_see_samples_as_they_are(flow, tmp_path):
  denoiser = tiny.train(tmp_path, "denoiser", "denoising", "train.steps=5")
  result = begin(
    tmp_path,
    "consistency_trajectory",
    f"teacher.workdir={flow}",
    f"features.workdir={denoiser}",
    "features.network.name=run",
    "loss.distance.name=features",
  )
  assert result.code == 2
  assert "this 'denoising' run does not see samples as they are" in result.err


def test_run_resumed_between_the_turns_of_a_pair(flow, tmp_path):
  shutil.copytree(flow, tmp_path / "flow")
  flow = tmp_path / "flow"
  method = "consistency_trajectory"
  sources = f"teacher.workdir={flow}", f"features.workdir={flow}"
  whole = tiny.train(tmp_path, "whole", method, *FLAGS, *sources)
  # Step 25 has an even number, 24, and was the generator's.
  half = tiny.train(
    tmp_path, "half", method, *FLAGS, *sources, "train.steps=25"
  )
  state = tiny.state_of(half)
  assert int(state.updates) == 13
  shutil.rmtree(flow)  # The checkpoint holds teacher and features.
  tiny.train(tmp_path, "half", method, *FLAGS, *sources)
  end = tiny.state_of(half)
  tiny.assert_same_bits(end, tiny.state_of(whole))
  rows = [row for row in tiny.rows(half) if row["step"] != "25"]
  assert rows == tiny.rows(whole)
  assert int(end.step) == 40 and int(end.updates) == 20
  assert set(end.frozen) == {"teacher", "features"}


def begin(folder, method, *flags):
  """Start training on the ring, where a wrong field is refused."""
  return tiny.run(*tiny.train_command(folder, "run", method, *flags))


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["loss.last_layer=outputs"], ["loss.last_layer='outputs'", "output/kern"]),
    (["discriminator.turns=both"], ["discriminator.turns='both'", "joint"]),
    (["train.steps_per_dispatch=1"], ["train.steps_per_dispatch=1", "2 or"]),
    (["discriminator.start=0.99"], ["discriminator.start=0.99", "earlier"]),
    (["discriminator.start=1.0"], ["discriminator.start=1.0", "below 1"]),
    (["loss.criterion.name=wgan"], ["loss.criterion.name='wgan'", "hinge"]),
    (
      ["discriminator.network.name=projected"],
      ["discriminator.network.name='projected'", "features.network.name"],
    ),
    (["features.network.name=conv"], ["features.network.name='conv'", "none"]),
    (["features.network.name=run"], ["features.workdir=''", "folder"]),
    (
      ["features.network.name=vgg16", "loss.distance.name=lpips"],
      ["features.network.file is missing"],
    ),
    (["loss.distance.name=lpips"], ["loss.distance.name='lpips'", "features"]),
    (
      ["discriminator.optimizer.name=adamm"],
      ["discriminator.optimizer.name='adamm'"],
    ),
  ],
  ids=lambda x: x[0] if "=" in x[0] else "",
)
def test_bad_fields_stop_before_training(flow, tmp_path, flags, words):
  source = f"teacher.workdir={flow}", "teacher.init_student=False"
  discriminator = "discriminator.network.name=conv"
  if any(flag.startswith(("features", "loss.dist")) for flag in flags):
    discriminator = "discriminator.network.name=none"
  method = "consistency_trajectory"
  result = begin(tmp_path, method, *source, discriminator, *flags)
  assert result.code == 2 and not (tmp_path / "run").exists()
  assert all(word in result.err for word in words), result.err


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (
      ["loss.adversarial_weight=0.5"],
      ["loss.adversarial_weight=0.5", "discriminator.network.name='none'"],
    ),
    (
      ["discriminator.network.name=conv"],
      ["loss.adversarial_weight=0.0", "discriminator.network.name='conv'"],
    ),
    (
      ["loss.perceptual_weight=1.0"],
      ["loss.perceptual_weight=1.0", "loss.perceptual.name='none'"],
    ),
    (
      ["loss.adversarial_weight=-1.0"],
      ["loss.adversarial_weight=-1.0", "0 or"],
    ),
  ],
  ids=lambda x: x[0] if "=" in x[0] else "",
)
def test_a_term_needs_its_weight_and_its_network(tmp_path, flags, words):
  # Pairs are read before: the config is checked without any.
  file = tiny.config_file(tmp_path)
  arguments = [f"--config={file}:insta_flow"]
  arguments += [f"--config.{flag}" for flag in flags]
  config = config_flags.parse(arguments)
  with pytest.raises(UsageError) as error:
    check_limits(config)
    tiny.run_of(resolve(config, shape=(2,), num_classes=0, teacher=None))
  assert all(word in str(error.value) for word in words)


def test_penalties_of_the_config_reach_the_discriminator(tmp_path):
  """Without a penalty it learns something else; the generator alternates."""
  flags = ("train.steps=10", "checkpoint.every=10")
  ends = {}
  for name, more in {
    "penalised": (),
    "free": ("discriminator.loss.penalty=0.0",),
    "later": ("discriminator.start=0.5",),
  }.items():
    run = tiny.train(tmp_path, name, "adversarial_flow", *flags, *more)
    ends[name] = tiny.state_of(run)
    assert int(ends[name].skipped) == 0
  logits = {k: companion_of(x).params["logit"] for k, x in ends.items()}
  kernels = {k: x["output"]["kernel"] for k, x in logits.items()}
  assert not np.allclose(kernels["penalised"], kernels["free"])
  assert "time" in logits["penalised"]
  updates = {k: int(x.updates) for k, x in ends.items()}
  assert updates == {"penalised": 5, "free": 5, "later": 7}


def test_jumps_of_many_lengths_train(tmp_path):
  pair = "times.name=truncated_pair", "times.law.name=uniform"
  blocks = ("discriminator.loss.penalty_block=(2,1)", "train.steps=4")
  run = tiny.train(
    tmp_path, "any", "adversarial_flow", *pair, *blocks, "checkpoint.every=4"
  )
  assert int(tiny.state_of(run).updates) == 2


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (
      ["discriminator.network.name=none"],
      ["loss.adversarial_weight=1.0", "discriminator.network.name='none'"],
    ),
    (
      ["discriminator.loss.penalty=-1.0"],
      ["discriminator.loss.penalty=-1.0", "0 or more"],
    ),
    (["discriminator.loss.step=1.0"], ["discriminator.loss.step"]),
    (
      ["discriminator.loss.penalty_block=(3,1)"],
      ["no multiple of the block (3, 1)"],
    ),
    (["discriminator.times.name=t_max"], ["s=None: a timed discriminator"]),
  ],
  ids=lambda x: x[0] if "=" in x[0] else "",
)
def test_what_adversarial_flow_refuses(tmp_path, flags, words):
  result = begin(tmp_path, "adversarial_flow", *flags)
  assert result.code == 2, result.err
  assert all(word in result.err for word in words), result.err


def test_layer_of_a_pattern():
  params = {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.zeros(3)}}
  put, layer = layers.split(params, "b/.*")
  np.testing.assert_array_equal(layer, np.zeros(3))
  new = put(layer + 1)
  np.testing.assert_array_equal(new["b"]["kernel"], np.ones(3))
  assert new["a"]["kernel"] is params["a"]["kernel"]
  for pattern, words in (
    (".*/kernel", ["matches 2 arrays", "of a/kernel, b/kernel"]),
    ("b", ["matches no array", "b/kernel"]),
    ("(", ["no regular expression"]),
  ):
    with pytest.raises(UsageError) as error:
      layers.split(params, pattern)
    assert all(word in str(error.value) for word in words)


def test_adaptive_weights_are_ratios_of_gradients(x64):
  """Eq. (9) with gradients of the whole network's parameters, one layer."""
  network = models.mlp(
    data_shape=(2,), width=8, depth=1, time_features=4, second_time=True
  )
  params = network.init(jax.random.key(0))
  target = network.init(jax.random.key(1))
  path = paths.VarianceExploding()
  walk = times.TrajectoryTimes(grid=times.karras_grid, num_points=5)
  options = {"path": path, "sample_times": walk}

  def teacher(xt, t, s, cond):
    return xt / t[:, None]

  def critic(params, frozen):
    return {"discriminator": lambda x, cond: jnp.tanh(x.sum(1))}

  frozen_fns = {"teacher": lambda frozen: teacher}
  method = METHODS["consistency_trajectory"]
  loss_fn = make_loss_fn(
    method,
    network.apply,
    options,
    frozen_fns=frozen_fns,
    companion_fns={"discriminator": critic},
    last_layer="output/kernel",
  )
  state = init_state(params, optax.sgd(1.0), {})
  state = dataclasses.replace(
    state,
    ema={"target": target},
    companions={"discriminator": Companion(params=(), opt_state=())},
  )
  batch = {"data": jax.random.normal(jax.random.key(2), (8, 2))}
  key = jax.random.key(3)
  _, metrics = jax.jit(loss_fn)(params, state, key, batch)

  def part(params, name):
    loss_key, dropout_key = jax.random.split(key)
    value = losses.consistency_trajectory_loss(
      functools.partial(network.apply, params, key=dropout_key),
      loss_key,
      batch,
      target_fn=functools.partial(network.apply, target),
      teacher=teacher,
      **critic(None, None),
      **options,
    )
    return value[1][name]

  gradient = jax.jit(jax.grad(part), static_argnums=1)
  norms = {
    name: jnp.linalg.norm(gradient(params, name)["output"]["kernel"])
    for name in ("raw", "denoising", "adversarial")
  }
  for name, low, high in (("denoising", 0, 1e4), ("adversarial", 0.01, 10)):
    expected = jnp.clip(norms["raw"] / (norms[name] + 1e-4), low, high)
    np.testing.assert_allclose(metrics[f"lam_{name}"], expected, rtol=1e-6)


def test_weights_of_a_distance_are_read_once_and_kept(tmp_path):
  file = tmp_path / "weights.npz"
  given = {
    f"lin{i}.model.1.weight": np.full((1, 16, 1, 1), i + 1.0) for i in range(2)
  }
  np.savez(file, **given)
  config = default_config("consistency_training", data="ring", model="mlp")
  config.features.network = {"name": "conv", "width": 16, "depth": 2}
  for digest in (hashlib.sha256(file.read_bytes()).hexdigest(), 64 * "0"):
    config.loss.distance = {
      "name": "lpips",
      "file": str(file),
      "sha256": digest,
    }
    run = tiny.run_of(resolve(config, shape=(2,), num_classes=0, teacher=None))
    if digest == 64 * "0":
      with pytest.raises(UsageError, match=r"weights\.npz"):
        run.plan.roles.frozen(jax.random.key(0), {})
      break
    frozen = run.plan.roles.frozen(jax.random.key(0), {})
    shapes = jax.tree.map(jnp.shape, frozen)
    assert shapes == jax.tree.map(jnp.shape, run.plan.roles.frozen_shapes())
    for i, weights in enumerate(frozen["distance"]):
      np.testing.assert_array_equal(weights, np.full(16, i + 1.0))
    file.rename(tmp_path / "gone.npz")
    key = jax.random.key(0)
    state = run.init(run.model.network.init(key), frozen, key)
    after, _ = run.train_step()(state, shifted(1, 16, 0))
    assert int(after.updates) == 1
    (tmp_path / "gone.npz").rename(file)


SCORES = {
  "plain": (),
  "critic": (
    "critic.network.name=heads",
    "loss.adversarial_weight=0.003",
    "fake_score.loss.smoothness_weight=1.0",
  ),
}


@pytest.fixture(scope="module")
def line(tmp_path_factory):
  """Return a trained teacher on the linear path."""
  folder = tmp_path_factory.mktemp("runs")
  return tiny.train(folder, "line", "flow_matching", "train.steps=10")


@pytest.mark.parametrize("kind", SCORES)
def test_fake_score_resumed_inside_of_a_round(kind, line, tmp_path):
  flags = [f"teacher.workdir={line}", "checkpoint.every=5", *SCORES[kind]]
  method = "distribution_matching"
  whole = tiny.train(tmp_path, "whole", method, *flags)
  half = tiny.train(tmp_path, "half", method, *flags, "train.steps=23")
  state = tiny.state_of(half)
  assert int(state.updates) == 5
  own = companion_of(state, "fake_score").params
  begun = state.frozen["teacher"]
  assert tiny.apart(own["network"], begun) > 0
  assert ("critic" in own) == (kind == "critic")
  tiny.train(tmp_path, "half", method, *flags)
  end = tiny.state_of(half)
  tiny.assert_same_bits(end, tiny.state_of(whole))
  tiny.assert_same_bits(end.frozen["teacher"], begun)
  assert int(end.updates) == 8
  row = tiny.rows(whole)[-1]
  assert {"fake_score_loss", "score_gap"} <= row.keys()
  assert ("fake_logit" in row) == (kind == "critic")


def test_ratios_of_a_run_are_remembered(line, tmp_path):
  workdir = tiny.train(
    tmp_path, "run", "f_distillation", f"teacher.workdir={line}"
  )
  bins = tiny.state_of(workdir).memory["bins"]
  assert bins.shape == (10,) and not np.allclose(bins, 1)
