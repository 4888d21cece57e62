"""What a loss is given by mistake is named at once, in every row."""

import jax
import jax.numpy as jnp
import pytest
from test_contract import ROWS, accepted, batch_of, loss_of, some_times

from jaxflow import losses, paths, times

KEY = jax.random.key(1)


def rows_with(option):
  """Return the rows whose loss takes an option."""
  return [name for name, row in ROWS.items() if option in accepted(row)]


def refuse(name, words, **changes):
  loss, params = loss_of(ROWS[name])
  with pytest.raises(ValueError, match=words):
    loss(params, KEY, batch_of(ROWS[name]), **changes)


@pytest.mark.parametrize("name", rows_with("sample_times"))
def test_times_of_another_kind(name):
  several = isinstance(some_times(ROWS[name], KEY), tuple)
  law = times.Uniform()
  wrong = law if several else times.SortedPair(law=law)
  words = "Uniform draws times" if several else "SortedPair draws pairs"
  refuse(name, f"{words}, and here .* are drawn: give", sample_times=wrong)


@pytest.mark.parametrize("name", rows_with("derivative"))
def test_unknown_derivative(name):
  refuse(name, r"derivative='x': use jvp, central", derivative="x")


CRITERION = r"criterion='hinge': give a Criterion"


@pytest.mark.parametrize("name", rows_with("criterion"))
def test_a_criterion_is_no_name(name):
  changes = {"criterion": "hinge"}
  given = accepted(ROWS[name])
  if "adversarial_weight" in given:
    changes["adversarial_weight"] = 1.0
  if "discriminator" in given:
    changes["discriminator"] = lambda x, cond, s=None: x[:, 0]
  refuse(name, CRITERION, **changes)


@pytest.mark.parametrize("loss", ["discriminator_loss", "fake_score_loss"])
def test_a_criterion_of_companions_is_no_name(loss):
  with pytest.raises(ValueError, match=CRITERION):
    getattr(losses, loss)(
      lambda *given: given[0],
      KEY,
      {"data": jnp.ones((4, 2))},
      path=paths.Linear(),
      sample_times=times.Uniform(),
      generator=lambda xt, t, s, cond: xt,
      criterion="hinge",
    )
