"""The study of attention: its page, its files and its arithmetic."""

import json

import pytest

from experiments.attention import run
from experiments.runner import pages


def kept(part):
  return json.loads((run.RESULTS / f"{part}.json").read_text())


@pytest.mark.parametrize("part", run.PARTS)
def test_the_page_says_what_the_files_say(part):
  text = (run.HERE / "README.md").read_text()
  table = run.PARTS[part][1](kept(part))
  assert pages.filled(text, {part: table}) == text


@pytest.mark.parametrize("part", run.PARTS)
def test_every_entry_is_there(part):
  assert list(kept(part)) == [name for name, _ in run.PARTS[part][0](False)]


def test_kernels_state_the_products_that_they_make():
  # Of all pairs: 2 of the value, 4 of the tangent, 3 and 4 of the gradients.
  for name, row in kept("tpu").items():
    _, tokens, kind = name.split(", ")
    if kind == "kernel":
      pairs = run.HEADS * int(tokens) ** 2
      assert row["flops"] == 13 * 2 * run.FEATURES * pairs


def test_a_program_that_does_not_fit_has_no_figures():
  row = {"temporary": None, "needs": 3 * run.MIB}
  line = run.tpu_table({"v5e, 1024, xla": row}).splitlines()[-1]
  assert line == "| v5e | 1,024 | xla | does not fit: 3 |  |  |  |"
