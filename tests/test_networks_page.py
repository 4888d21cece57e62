"""docs/networks.md: its networks keep the contract, and its run comes again."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow.errors import UsageError

PAGE = pathlib.Path(__file__).parents[1] / "docs/networks.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind):
  return [
    code for name, code in BLOCK.findall(PAGE.read_text()) if name == kind
  ]


FRAMEWORKS = {
  re.search("flax import nnx|flax import linen|equinox|haiku", code)[0]: code
  for code in blocks("python")[1:-1]
}


def test_there_are_four_frameworks():
  assert len(FRAMEWORKS) == len(blocks("python")) - 2 == 4


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_network_keeps_the_contract(framework):
  names = {"jax": jax, "jnp": jnp, "jaxflow": jaxflow}
  exec(FRAMEWORKS[framework], names)
  network = names["network"]
  jaxflow.models.check_network(network, shape=(2,))
  params = network.init(jax.random.key(0))
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  assert all(
    isinstance(path[0], jax.tree_util.DictKey) for path in paths(params)
  )
  xt, t = jax.random.normal(jax.random.key(1), (3, 2)), jnp.full(3, 0.5)
  plain = network.apply(params, xt, t, t, None)
  assert plain.shape == (3, 2) and jnp.isfinite(plain).all()
  np.testing.assert_array_equal(plain, network.apply(params, xt, t, t, None))
  # A second time is read, and one key drops the same units.
  assert (plain != network.apply(params, xt, t, t / 2, None)).any()
  keys = jax.random.split(jax.random.key(2), 2)
  dropped = [network.apply(params, xt, t, t, None, key=keys[0])] * 2
  np.testing.assert_array_equal(*dropped)
  drops = framework != "equinox"
  other = network.apply(params, xt, t, t, None, key=keys[1])
  assert bool((dropped[0] != other).any()) == drops
  slope = jax.jvp(
    lambda t: network.apply(params, xt, t, t, None), (t,), (jnp.ones(3),)
  )[1]
  assert jnp.isfinite(slope).all()


def paths(params):
  return [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def test_run_of_the_page_comes_again(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  first, *_, again = blocks("python")
  names = {}
  exec(first, names)
  assert names["points"].shape == (16, 2)
  exec(again, names)
  assert names["run"].step == 40
  capsys.readouterr()


def test_messages_of_the_page(tmp_path):
  config = jaxflow.preset("ring:mean_flow")
  wrong = [
    (lambda key: {"count": jnp.zeros((), int)}, None),
    (lambda key: {}, apply),
    (lambda key: {}, lambda params, xt, t, s, cond, key=None: xt[:, :1]),
  ]
  lines = []
  for network in wrong:
    with pytest.raises(UsageError) as caught:
      jaxflow.train(config, network=jaxflow.Network(*network))
    lines.append(f"{caught.value}\n")
  shown, absent = blocks("text")
  assert shown == "".join(lines)
  config.model = {"name": "given"}
  with pytest.raises(UsageError) as caught:
    jaxflow.train(config)
  assert absent == f"{caught.value}\n"


def apply(params, xt, t, s, cond):
  return xt
