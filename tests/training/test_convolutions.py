"""Convolutions are found in traced programs, and keep dispatches short."""

import jax
import jax.numpy as jnp
import pytest

import jaxflow
from jaxflow.config import default_config
from jaxflow.training.convolutions import convolves

IMAGE, KERNEL = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))


def convolve(x):
  names = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    x, KERNEL, (1, 1), "SAME", dimension_numbers=names
  )


def square(x):
  return jnp.einsum("bhwc,bwvc->bhvc", x, x)


@jax.custom_vjp
def with_rule(x):
  return convolve(x)


with_rule.defvjp(lambda x: (convolve(x), None), lambda _, g: (g,))

CONVOLUTIONS = {
  "plain": convolve,
  "gradient": jax.grad(lambda x: (convolve(x) ** 2).sum()),
  "jit": jax.jit(convolve),
  "loop": lambda x: jax.lax.fori_loop(0, 3, lambda _, x: convolve(x), x),
  "scan": lambda x: jax.lax.scan(lambda x, _: (convolve(x), 0), x, None, 3)[0],
  "branch": lambda x: jax.lax.cond(x.sum() > 0, convolve, jnp.sin, x),
  "checkpoint": jax.checkpoint(convolve),
  "own rule": with_rule,
  "vmap": jax.vmap(lambda x: convolve(x[None])[0]),
}
OTHERS = {
  "product": square,
  "scan": lambda x: jax.lax.scan(lambda x, _: (square(x), 0), x, None, 3)[0],
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_found(name):
  assert convolves(jax.make_jaxpr(CONVOLUTIONS[name])(IMAGE))


@pytest.mark.parametrize("name", OTHERS)
def test_other_programs_have_none(name):
  assert not convolves(jax.make_jaxpr(OTHERS[name])(IMAGE))


UNET = {"channels": 8, "multipliers": (1,), "num_blocks": 1}
SMALL = {"depth": 1, "width": 16, "num_heads": 2, "patch_size": 4}
JUDGE = {"name": "conv", "width": 4, "depth": 1, "timed": True}


def flow_matching():
  config = default_config("flow_matching", data="digits", model="unet")
  config.model.update(UNET, attention_resolutions=())
  return config


def adversarial_flow(turns):
  config = jaxflow.preset("digits:adversarial_flow")
  config.model.update(SMALL)
  config.optimizer.warmup_steps = 0
  config.discriminator.update(network=JUDGE, turns=turns)
  return config


@pytest.mark.parametrize(
  ("config", "steps"),
  [
    (flow_matching(), 1),
    (adversarial_flow("joint"), 1),
    # Two networks take turns within a dispatch.
    (adversarial_flow("alternate"), 2),
  ],
)
def test_a_dispatch_is_short_on_cpus(config, steps):
  config.train.update(steps=4, batch_size=4, log_every=4, sample_every=0)
  config.train.steps_per_dispatch = 4
  config.mesh.data = 1
  lines = []
  assert jaxflow.train(config, log=lines.append).step == 4
  text = "\n".join(lines)
  assert f"slow in a loop: {steps} step(s) a dispatch" in text
  assert f", {steps} steps per dispatch, " in text
