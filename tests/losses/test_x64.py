"""Under JAX_ENABLE_X64 everything follows the type of its data.

Each case is computed three times: in float32 as usual, and under x64 with
float32 and with float64 data. The three agree up to rounding.
"""

import functools
import itertools
import json
import math
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from source import ROOT
from test_contract import ROWS, SIZE, log_weights_of, memories_of, options_of

import jaxflow
from jaxflow import config as config_lib
from jaxflow import (
  couplings,
  flow_maps,
  guidance,
  losses,
  metrics,
  models,
  paths,
  predictions,
  pretrained,
  sampling,
  solvers,
  times,
  weights,
)
from jaxflow.losses import perceptual
from jaxflow.models.network import init_and_module
from jaxflow.pretrained.efficientnet import EfficientNetLite0
from jaxflow.pretrained.inception import Inception
from jaxflow.sampling.steps import step_noise_of

KEY = jax.random.key(3)
LINEAR, EDM = paths.Linear(), paths.VarianceExploding()
ANGULAR = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
INNER = paths.Linear(t_min=0.006, t_max=0.994)


def close(found, expected, tolerance):
  """Two trees of floating-point numbers agree, each array at its own scale."""
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    scale = np.abs(np.asarray(b, np.float64)).max(initial=1e-3)
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def check(function, *, tolerance=1e-5):
  """Check `function(dtype) -> (outputs, what a float32 network computes)`."""
  compute = jax.jit(function, static_argnums=0)
  with jax.enable_x64(False):
    expected = compute(jnp.float32)
  for dtype in (jnp.float32, jnp.float64):
    with jax.enable_x64(True):
      outputs, others = compute(dtype)
    chex.assert_type(jax.tree.leaves(outputs), dtype)
    types = {x.dtype.type for x in jax.tree.leaves(others)}
    assert types <= {np.float32, np.dtype(dtype).type}
    close((outputs, others), expected, tolerance)


def points(dtype, rows=SIZE, seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.standard_normal((rows, 2)), dtype)


def batch_of(dtype):
  """Return a batch with all the noise that losses else draw in its type."""
  names = "data", "noise", "fresh_noise", "noise_boundary", "noise_denoising"
  names += ("noise_rectify", "noise_flow", "noise_end", "noise_t")
  names += ("noise_r1", "noise_r2", "noise_critic")
  batch = {name: points(dtype, seed=i) for i, name in enumerate(names)}
  return batch | {"cond": jnp.arange(SIZE, dtype=jnp.int32) % 8}


def parameters(seed=0):
  """Return the parameters of `network`, of float32."""
  generator = np.random.default_rng(seed)
  shapes = {"x": (2, 8), "times": (5, 8), "label": (9, 8), "out": (8, 4)}
  return {
    name: jnp.asarray(generator.standard_normal(shape), jnp.float32)
    for name, shape in shapes.items()
  }


def network(params, xt, t, s, cond, *, heads=1):
  """Compute in float32, whatever it is given, as the library's networks do."""
  given = cond if isinstance(cond, dict) else {"label": cond}
  guidance = [given[k] for k in ("omega", "t_start", "t_end") if k in given]
  seen = jnp.stack([t, s, *guidance], axis=1).astype(jnp.float32)
  hidden = xt.astype(jnp.float32) @ params["x"]
  hidden += jnp.cos(seen) @ params["times"][: seen.shape[1]]
  if given["label"] is not None:
    hidden += params["label"][given["label"]]
  outputs = jnp.split(jnp.tanh(hidden) @ params["out"], 2, axis=1)
  return tuple(outputs) if heads == 2 else outputs[0]


def fixed(seed):
  """Return a network that is not trained."""
  return functools.partial(network, parameters(seed))


def noised_critic(x, t, cond):
  return jnp.tanh(x.astype(jnp.float32)).sum(axis=1) * jnp.cos(t)


def critic(x, cond, s=None):
  angle = x.astype(jnp.float32)
  if s is not None:
    angle += jnp.cos(s.astype(jnp.float32))[:, None]
  return jnp.tanh(angle).sum(axis=1)


# Options of rows that add a term.
EXTRA = {
  "mean_flow": {
    "guided": {"omega": 2.0, "kappa": 0.5},
    "teacher": {"teacher": fixed(2)},
  },
  "alpha_flow": {
    "guided": {"omega": 2.0, "kappa": 0.5, "decay_start": 0.5, "clip": 4.0}
  },
  "decoupled_mean_flow": {"guided": {"kappa": 0.5}},
  "shortcut": {"guided": {"omega": 2.0}},
  "lagrangian": {"guided": {"omega": 2.0}},
  "flow_anchored_consistency": {
    "guided": {"omega": 2.0, "expanded": True},
    "teacher": {"teacher": fixed(2)},
  },
  "distribution_matching": {
    "critic": {
      "critic": noised_critic,
      "critic_times": times.Uniform(),
      "adversarial_weight": 1.0,
    },
    "steps": {"start_times": times.Uniform()},
  },
  "twin_flow": {"guided": {"kappa": 0.5, "block": (4, 1)}},
  "improved_mean_flow": {"unlabelled": {"null_cond": None}},
  "knowledge_distillation": {
    "terms": {
      "discriminator": critic,
      "perceptual": perceptual.lpips(jnp.tanh),
      "perceptual_weight": 1.0,
      "adversarial_weight": 1.0,
    }
  },
  "consistency_distillation": {"boundary": {"boundary_weight": 1.0}},
  "consistency_trajectory": {"adversarial": {"discriminator": critic}},
}
# Networks that a row cannot do without, beside those of its needs.
ROLES = {"adversarial_flow": {"discriminator": critic}}
CASES = [
  pytest.param(name, changes, id=f"{name}-{kind}" if kind else name)
  for name in ROWS
  for kind, changes in [("", {}), *EXTRA.get(name, {}).items()]
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_rows(name, changes):
  method = ROWS[name]
  model = functools.partial(
    network, heads=method.config.get("model", {}).get("heads", 1)
  )

  def evaluate(dtype):
    options = options_of(method) | ROLES.get(name, {})
    for option, weight in log_weights_of(options).items():
      options[option] = functools.partial(weight.apply, weight.init(KEY))
    options |= memories_of(method, options)
    if "target" in method.needs:
      options["target_fn"] = functools.partial(model, parameters(1))
    if "teacher" in method.needs:
      options["teacher"] = fixed(2)
    if "fake_score" in method.companions:
      options["fake_score"] = fixed(4)
    if "critic" in method.config:
      options["critic"] = noised_critic
    if "progress" in method.needs:
      options["progress"] = jnp.full((), 0.5, float)

    def mean(params, batch):
      loss, measured, *_ = method.loss(
        functools.partial(model, params), KEY, batch, **options | changes
      )
      return loss.mean(), (loss, measured)

    gradient, (loss, measured) = jax.grad(mean, has_aux=True)(
      parameters(), batch_of(dtype)
    )
    return loss, (measured, gradient)

  # A weight 1 / (t - s) enlarges the rounding of two nearly equal points.
  check(evaluate, tolerance=1e-2)


def follow(x, t, s, cond):
  """Return a network of the type of its points."""
  del cond
  return jnp.tanh(x + paths.expand(jnp.cos(t) + s, x))


def heads(x, t, s, cond):
  return follow(x, t, s, None) * paths.expand(cond["omega"], x), x


FLOW_MAPS = {
  "average_velocity": {},
  "ddim_step": {"path": LINEAR},
  "dyadic_velocity": {"num_steps": 4},
  "edm_denoiser": {},
  "edm_skip": {},
  "free": {},
  "generator": {},
  "guided_step": {},
  "guided_velocity": {},
  "hard_boundary": {},
  "identity": {"path": LINEAR},
  "linear_skip": {"t_max": 1.0},
  "ode_step": {"solver": solvers.heun},
  "rotation": {"path": LINEAR},
  "scaled_velocity": {},
  "trajectory": {},
  "trigonometric": {},
}


@pytest.mark.parametrize("name", flow_maps.__all__)
def test_flow_maps(name):
  model_fn = heads if name == "guided_velocity" else follow
  jump = getattr(flow_maps, name)(model_fn, **FLOW_MAPS[name])

  def carry(dtype):
    t, s = (jnp.full(SIZE, time, dtype) for time in (0.75, 0.25))
    return jump(points(dtype), t, s, None), ()

  check(carry)


GRIDS = {
  "extended": functools.partial(times.extended_grid, grid=times.karras_grid),
  "given": functools.partial(times.given_grid, values=(0.9, 0.5, 0.3, 0.1)),
  "karras": times.karras_grid,
  "karras_ratio": functools.partial(
    times.karras_ratio_grid, path=INNER, t_min=0.1, t_max=0.9
  ),
  "log": functools.partial(times.log_grid, t_min=0.1, t_max=1.0),
  "log_snr": functools.partial(
    times.log_snr_grid, path=INNER, t_min=0.1, t_max=0.9
  ),
  "shifted": times.shifted_grid,
  "uniform": times.uniform_grid,
}
SAMPLERS = {
  "jumps": (sampling.Jumps(), LINEAR),
  "consistency": (sampling.Consistency(clip=3.0), INNER),
  "restart": (sampling.Consistency(ends_on_data=True), INNER),
  "gamma": (sampling.Gamma(gamma=0.5), INNER),
  "ddim": (sampling.DDIM(), INNER),
  "ancestral": (sampling.DDIM(eta=1.0), INNER),
  "heun": (sampling.EDMHeun(), EDM),
  "churn": (sampling.EDMHeun(churn=2.0), EDM),
  "dpm_1": (sampling.DPMSolver(order=1), INNER),
  "dpm_2": (sampling.DPMSolver(), INNER),
  "dpm_3": (sampling.DPMSolver(order=3, lower_order_final=False), INNER),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_grids(grid):
  assert {f"{name}_grid" for name in GRIDS} == {
    name for name in times.__all__ if name.endswith("_grid")
  }

  def sample(dtype):
    jump = flow_maps.average_velocity(follow)
    return sampling.sample(jump, points(dtype), grid(4)), ()

  check(sample, tolerance=1e-4)


@pytest.mark.parametrize(("sampler", "path"), SAMPLERS.values(), ids=SAMPLERS)
def test_samplers(sampler, path):
  denoises = isinstance(sampler, sampling.Denoising)
  steps = 3 if isinstance(sampler, sampling.Consistency) else 4

  def sample(dtype):
    function = follow if denoises else flow_maps.average_velocity(follow)
    grid = times.uniform_grid(5, t_min=path.t_min, t_max=path.t_max)
    noise = paths.start(path, points(dtype))
    drawn = jnp.stack([points(dtype, seed=i) for i in range(steps)])
    given = {"path": path, "key": KEY, "step_noise": drawn}
    return sampler(function, noise, grid, **given), ()

  check(sample, tolerance=1e-4)


def test_noise_of_steps():
  """Of a key it is what it is without x64, where points are of float32."""

  def draw(index):
    like = points(jnp.float32)
    return step_noise_of(jax.random.split(KEY, SIZE), None, like)(index)

  expected = draw(2)
  with jax.enable_x64(True):
    found = draw(jnp.arange(3)[2])
  np.testing.assert_array_equal(found, expected)


def test_made_samplers():
  def other(function, noise, times, cond, *, path, key):
    """Step as a sampler that knows nothing of types."""
    for t, s in itertools.pairwise(times):
      t, s = (jnp.broadcast_to(time, noise.shape[:1]) for time in (t, s))
      noise = function(noise, t, s, cond)
    return noise

  def sample(dtype):
    draw = sampling.make_sampler(
      lambda params: flow_maps.average_velocity(follow),
      sampler=other,
      path=LINEAR,
      times=times.uniform_grid(3),
    )
    return draw((), points(dtype), KEY, None), ()

  check(sample)


UNIFORM, NORMAL = times.Uniform(), times.LogitNormal()
WALK = times.TrajectoryTimes(grid=times.karras_grid, num_points=9)
LAWS = {
  "uniform": UNIFORM,
  "logit_normal": NORMAL,
  "log_normal": times.LogNormal(),
  "arctan_log_normal": times.ArctanLogNormal(),
  "karras": times.Karras(),
  "constant": times.Constant(t=0.3),
  "interleaved": times.Interleaved(first=UNIFORM, second=NORMAL),
  "sorted": times.SortedPair(law=NORMAL, equal=0.5),
  "limited": times.LimitedPair(t_law=UNIFORM, s_law=NORMAL),
  "truncated": times.TruncatedPair(law=NORMAL, t_min=0.1, t_max=0.9),
  "gap": times.GapPair(gap_law=NORMAL, s_law=NORMAL),
  "adjacent": times.AdjacentPair(grid=times.karras_grid, num_points=9),
  "dyadic": times.DyadicPair(),
  "triple": times.AdjacentTriple(grid=times.uniform_grid, num_steps=8),
  "walk": WALK,
  "start": times.StartTimes(sample_times=WALK),
  "ends": times.EndTimes(sample_times=WALK),
  "adaptive": times.AdaptivePair(),
  "doubling": times.DoublingPair(),
  "shrinking": times.ShrinkingPair(),
  "log_student": times.LogStudent(t_min=1.0),
  "transition": times.TransitionPair(),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_times(law):
  """Times are the same ones with x64 and without."""

  def draw(dtype):
    progress = jnp.full((), 0.4, float)
    return times.draw(law, KEY, points(dtype), progress), ()

  check(draw, tolerance=1e-4)


def test_times_of_half_precision_are_float32():
  data = points(jnp.bfloat16)
  assert times.draw(UNIFORM, KEY, data).dtype == jnp.float32


WEIGHTS = {
  **{
    name: getattr(weights, name)
    for name in (
      *("uniform", "snr", "snr_plus_one", "truncated_snr", "inverse_gap"),
      *("inverse_square", "velocity", "likelihood"),
    )
  },
  "karras": weights.karras(),
}
DISTANCES = {
  "l1": weights.l1,
  "l2": weights.l2,
  "l2_sum": weights.l2_sum,
  "huber": weights.huber(0.1),
  "scaled_huber": weights.scaled_huber(),
  "lpips": perceptual.lpips(jnp.tanh),
}
PATHS = {
  "linear": LINEAR,
  "angular": ANGULAR,
  "vp": paths.VariancePreserving(),
  "edm": EDM,
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_paths_weights_and_predictions(path):
  kinds = "data", "noise", "velocity", "v", "score"

  def compute(dtype):
    x, noise = points(dtype), points(dtype, seed=1)
    t, s = (jnp.full(SIZE, time, dtype) for time in (0.75, 0.25))
    found = {f"w_{k}": w(path, t, s) for k, w in WEIGHTS.items()}
    found |= {f"d_{k}": d(x, noise) for k, d in DISTANCES.items()}
    found["velocity"] = paths.velocity(path, x, noise, t)
    found["start"] = paths.start(path, noise)
    found["renoised"] = sampling.renoise(path, x, noise, t, s)
    level = predictions.noise_level(path, t)
    found["time"] = predictions.time_at(path, level)
    for a, b in itertools.permutations(kinds, 2):
      net = predictions.as_prediction(follow, path, source=a, target=b)
      found[f"{a} to {b}"] = net(x, t, t, None)
    other = predictions.on_path(follow, source=path, target=LINEAR)
    found["linear"] = other(x, t, s, None)
    found["unit"] = predictions.normalized(follow, path=path)(x, t, s, None)
    return found, ()

  check(compute)


def test_guidance_and_couplings():
  cond = jnp.arange(SIZE, dtype=jnp.int32) % 8

  def compute(dtype):
    t = jnp.full(SIZE, 0.5, dtype)
    x = points(dtype)
    guided = guidance.classifier_free(
      follow, scale=2.0, null_cond=8, interval=(0.2, 0.6)
    )
    pairs = {"data": x, "noise": points(dtype, seed=1), "fresh_noise": x}
    annealed = couplings.Annealed().at(jnp.full((), 0.1, float))
    dropped = guidance.drop_labels(KEY, cond, rate=0.3, null_cond=8)
    found = {
      "guided": guided(x, t, t, cond),
      "scale": guidance.scale_law(t, high=4.0),
      "annealed": annealed(pairs, KEY),
      "dropped": dropped.astype(dtype),
    }
    return found, ()

  check(compute)


def test_losses_of_no_row():
  def compute(dtype):
    given = {"path": LINEAR, "sample_times": UNIFORM}
    continuous, _ = losses.continuous_time_consistency_loss(
      follow,
      KEY,
      batch_of(dtype),
      flow_map=flow_maps.average_velocity,
      teacher=fixed(2),
      **given,
    )
    found, _ = losses.discriminator_loss(
      lambda x, cond: x.sum(axis=1),
      KEY,
      batch_of(dtype),
      generator=flow_maps.average_velocity(follow),
      **given,
    )
    jumps, _ = losses.discriminator_loss(
      critic,
      KEY,
      batch_of(dtype),
      path=LINEAR,
      sample_times=times.SortedPair(law=times.Uniform()),
      generator=flow_maps.average_velocity(follow),
      penalty=0.25,
      centre=0.01,
    )
    return (continuous, found, jumps), ()

  check(compute)


IMAGE = (16, 16, 3)


def types_of(function, *given):
  return {
    x.dtype.name for x in jax.tree.leaves(jax.eval_shape(function, *given))
  }


def test_parameters_and_predictions_are_float32(x64):
  """Networks compute as they always do, here of points of float64."""
  time = jax.ShapeDtypeStruct((2,), jnp.float64)
  label = jax.ShapeDtypeStruct((2,), jnp.int32)
  x = jax.ShapeDtypeStruct((2, *IMAGE), jnp.float64)
  names = "omega", "t_start", "t_end"
  tiny = models.SIZES["tiny"] | {"data_shape": IMAGE}
  networks = {
    "mlp": models.mlp(num_classes=8, guidance_inputs=True, heads=2),
    "dit": models.dit(**tiny, num_classes=8, dropout=0.1),
    "dit_scanned": models.dit(**tiny, scan_layers=True, remat=True),
    "unet": models.unet(
      data_shape=IMAGE, channels=8, num_blocks=1, num_classes=8, dropout=0.1
    ),
  }
  seen = {
    "conv": models.conv_features(data_shape=IMAGE, width=4, depth=2),
    "vgg": pretrained.vgg16(stages=((2,), (3, 3)), resize=32),
  }
  for name, network in networks.items():
    given = x if name != "mlp" else jax.ShapeDtypeStruct((2, 2), x.dtype)
    cond = dict.fromkeys(names, time) | {"label": label}
    params = jax.eval_shape(network.init, KEY)
    found = types_of(network.apply, params, given, time, time, cond, KEY)
    assert found == types_of(lambda x: x, params) == {"float32"}, name
  for name, features in seen.items():
    frozen = jax.eval_shape(features.init, KEY)
    found = types_of(features.apply, frozen, x)
    assert found == types_of(lambda x: x, frozen) == {"float32"}, name
    critic = models.projected_discriminator(
      data_shape=IMAGE, features=features, width=8, num_classes=8
    )
    params = jax.eval_shape(critic.init, KEY)
    found = types_of(critic.apply, params, x, label, frozen)
    assert found == types_of(lambda x: x, params) == {"float32"}, name
  critic = models.conv_discriminator(data_shape=IMAGE, width=4, num_classes=8)
  params = jax.eval_shape(critic.init, KEY)
  assert types_of(critic.apply, params, x, label) == {"float32"}
  weight = models.log_weight(channels=4)
  assert types_of(weight.apply, weight.init(KEY), time) == {"float32"}
  judge = models.classifier(data_shape=IMAGE, num_classes=8, width=4)
  assert types_of(judge.apply, jax.eval_shape(judge.init, KEY), x) == {
    "float32"
  }
  for module in (EfficientNetLite0, Inception):
    assert types_of(init_and_module(module)[0], KEY) == {"float32"}
  coder = pretrained.autoencoder(width=32, multipliers=(1, 2), layers=1)
  mean, _ = jax.eval_shape(coder.encode, coder.shapes, x)
  assert types_of(coder.decode, coder.shapes, mean) == {"float32"}


def test_metrics_of_trajectories():
  """What is integrated on a grid of float64 numbers."""
  expected = measured(jnp.float32)
  for dtype in (jnp.float32, jnp.float64):
    with jax.enable_x64(True):
      close(measured(dtype), expected, 1e-4)


def measured(dtype):
  x = points(dtype, rows=8)
  found = metrics.negative_log_likelihood(
    follow, x, KEY, path=LINEAR, times=np.linspace(1, 0, 3), batch_size=8
  )
  paths_of_noise = metrics.trajectories(
    follow, x, times=np.linspace(1, 0, 3), substeps=2, batch_size=8
  )
  levels = metrics.dequantise(KEY, x, 256)
  assert levels.dtype == dtype
  return found.nll, paths_of_noise.truncation, paths_of_noise.straightness


# Rows of different losses, flow maps, averages and numbers of steps.
TRAINED = {
  "improved_mean_flow": {
    "data": {"conditional": True},
    "loss": {"label_dropout": 0.1},
  },
  "consistency_training": {},
  "score_matching": {},
}


def train(method, fields):
  """Return types, the loss and samples of a short training on the ring."""
  config = jaxflow.preset(f"ring:{method}")
  config_lib.update(config, fields)
  config.model.update(width=8, depth=1, time_features=4)
  config.train.update(steps=2, batch_size=64, log_every=2)
  config.train.steps_per_dispatch = 2
  config.sample.nfe = 2
  logged = {}

  class Log:
    def on_log(self, step, scalars):
      logged.update(scalars)

  run = jaxflow.train(config, callbacks=[Log()], log=lambda line: None)
  return {
    "types": sorted({str(x.dtype) for x in jax.tree.leaves(run.state)}),
    "loss": float(logged["loss"]),
    "samples": run.sample(4).tolist(),
  }


def test_training_and_sampling_in_a_process():
  env = os.environ | {
    "JAX_ENABLE_X64": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
  }
  done = subprocess.run(
    [sys.executable, __file__],
    env=env,
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  found = json.loads(done.stdout)
  assert found.keys() == TRAINED.keys()
  for method, fields in TRAINED.items():
    expected = train(method, fields)
    assert found[method].pop("types") == expected.pop("types")
    close(found[method], expected, 1e-4)


if __name__ == "__main__":
  assert jax.config.jax_enable_x64
  print(json.dumps({name: train(name, x) for name, x in TRAINED.items()}))
