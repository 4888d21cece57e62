"""One loss under Flax Linen, Flax NNX, Equinox and Haiku: the same numbers.

A framework's section has a network, and how its parameters are bound to the
four arguments `(xt, t, s, cond)` that a loss calls.
"""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxflow import losses, paths, times

DIM, WIDTH, BATCH = 3, 16, 8


def inputs(xt, t, s):
  return jnp.concatenate([xt, t[:, None], s[:, None]], axis=1)


# Flax Linen.


class LinenNet(linen.Module):
  @linen.compact
  def __call__(self, xt, t, s, cond):
    h = jnp.tanh(linen.Dense(WIDTH)(inputs(xt, t, s)))
    return linen.Dense(DIM)(h)


linen_net = LinenNet()


def linen_loss(variables, key, batch, loss_fn):
  model_fn = functools.partial(linen_net.apply, variables)
  loss, _ = loss_fn(model_fn, key, batch)
  return loss.mean()


# Flax NNX.


class NNXNet(nnx.Module):
  def __init__(self, rngs):
    self.hidden = nnx.Linear(DIM + 2, WIDTH, rngs=rngs)
    self.output = nnx.Linear(WIDTH, DIM, rngs=rngs)

  def __call__(self, xt, t, s, cond):
    return self.output(jnp.tanh(self.hidden(inputs(xt, t, s))))


graphdef, nnx_params = nnx.split(NNXNet(nnx.Rngs(0)))


def nnx_loss(params, key, batch, loss_fn):
  model_fn = nnx.merge(graphdef, params)
  loss, _ = loss_fn(model_fn, key, batch)
  return loss.mean()


# Equinox.


class EquinoxNet(eqx.Module):
  hidden: eqx.nn.Linear
  output: eqx.nn.Linear

  def __call__(self, xt, t, s, cond):
    h = jnp.tanh(jax.vmap(self.hidden)(inputs(xt, t, s)))
    return jax.vmap(self.output)(h)


def equinox_loss(model_fn, key, batch, loss_fn):
  loss, _ = loss_fn(model_fn, key, batch)
  return loss.mean()


# Haiku.


@hk.transform
def haiku_net(xt, t, s, cond):
  h = jnp.tanh(hk.Linear(WIDTH)(inputs(xt, t, s)))
  return hk.Linear(DIM)(h)


def haiku_loss(params, key, batch, loss_fn):
  model_fn = functools.partial(haiku_net.apply, params, key)
  loss, _ = loss_fn(model_fn, key, batch)
  return loss.mean()


# The same weights, and gradients as the same list, in every framework.


def linen_parameters(w1, b1, w2, b2):
  first, second = {"kernel": w1, "bias": b1}, {"kernel": w2, "bias": b2}
  return {"params": {"Dense_0": first, "Dense_1": second}}


def linen_list(variables):
  layers = variables["params"]["Dense_0"], variables["params"]["Dense_1"]
  return [layer[k] for layer in layers for k in ("kernel", "bias")]


def nnx_parameters(w1, b1, w2, b2):
  first, second = {"kernel": w1, "bias": b1}, {"kernel": w2, "bias": b2}
  params = jax.tree.map(lambda x: x, nnx_params)
  nnx.replace_by_pure_dict(params, {"hidden": first, "output": second})
  return params


def nnx_list(params):
  pure = nnx.to_pure_dict(params)
  layers = pure["hidden"], pure["output"]
  return [layer[k] for layer in layers for k in ("kernel", "bias")]


def equinox_parameters(w1, b1, w2, b2):
  net = EquinoxNet(
    eqx.nn.Linear(DIM + 2, WIDTH, key=jax.random.key(0)),
    eqx.nn.Linear(WIDTH, DIM, key=jax.random.key(0)),
  )

  def leaves(net):
    layers = net.hidden, net.output
    return [x for layer in layers for x in (layer.weight, layer.bias)]

  return eqx.tree_at(leaves, net, [w1.T, b1, w2.T, b2])


def equinox_list(net):
  layers = net.hidden, net.output
  return [x for layer in layers for x in (layer.weight.T, layer.bias)]


def haiku_parameters(w1, b1, w2, b2):
  return {"linear": {"w": w1, "b": b1}, "linear_1": {"w": w2, "b": b2}}


def haiku_list(params):
  return [params[k][p] for k in ("linear", "linear_1") for p in ("w", "b")]


def bare_loss(weights, key, batch, loss_fn):
  def model_fn(xt, t, s, cond):
    w1, b1, w2, b2 = weights
    h = jnp.tanh(inputs(xt, t, s) @ w1 + b1[None])
    return h @ w2 + b2[None]

  return loss_fn(model_fn, key, batch)[0].mean()


FRAMEWORKS = {
  "linen": (linen_loss, linen_parameters, linen_list),
  "nnx": (nnx_loss, nnx_parameters, nnx_list),
  "equinox": (equinox_loss, equinox_parameters, equinox_list),
  "haiku": (haiku_loss, haiku_parameters, haiku_list),
}
LOSSES = {
  "flow_matching": functools.partial(
    losses.flow_matching_loss,
    path=paths.Linear(),
    sample_times=times.Uniform(),
  ),
  "mean_flow": functools.partial(
    losses.mean_flow_loss,
    path=paths.Linear(),
    sample_times=times.SortedPair(law=times.Uniform()),
    norm_power=0.5,
  ),
}


@pytest.fixture(scope="module")
def weights():
  shapes = [(DIM + 2, WIDTH), (WIDTH,), (WIDTH, DIM), (DIM,)]
  keys = jax.random.split(jax.random.key(1), len(shapes))
  return [
    jax.random.normal(k, shape) / np.sqrt(shape[0])
    for k, shape in zip(keys, shapes, strict=True)
  ]


def evaluate(bound, params, loss, transform):
  call = functools.partial(bound, loss_fn=LOSSES[loss])
  batch = {"data": jax.random.normal(jax.random.key(3), (BATCH, DIM))}
  compute = transform(jax.value_and_grad(call))
  return compute(params, jax.random.key(2), batch)


@pytest.fixture(scope="module", params=LOSSES)
def expected(request, weights):
  return request.param, evaluate(bare_loss, weights, request.param, jax.jit)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["", "jit"])
def test_equal_loss_and_gradient(framework, expected, transform, weights):
  loss, (value, gradient) = expected
  bound, parameters, as_list = FRAMEWORKS[framework]
  mine, its = evaluate(bound, parameters(*weights), loss, transform)
  np.testing.assert_allclose(mine, value, rtol=1e-5)
  for a, b in zip(as_list(its), gradient, strict=True):
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)
