"""The study of large loads: its page, its file and its smallest case."""

import csv
import pathlib

from experiments.load import run
from experiments.runner import pages


def kept():
  with (run.RESULTS / "load.csv").open() as file:
    return list(csv.DictReader(file))


def test_the_page_says_what_the_file_says():
  text = (run.HERE / "README.md").read_text()
  assert pages.filled(text, {"table": run.markdown(kept())}) == text


def test_every_case_is_there_at_a_tenth_and_in_full():
  found = [(row["case"], int(row["size"])) for row in kept()]
  full = [(name, size) for name, (_, size) in run.CASES.items()]
  tenth = [(name, size // 10) for name, size in full]
  assert sorted(found) == sorted([("floor", 1), *tenth, *full])


def test_growth_is_of_a_case_with_itself():
  row = {"size": 1, "seconds": 1.25, "disk_mib": 0}
  table = run.markdown(
    [
      {**row, "case": "floor", "peak_mib": 100},
      {**row, "case": "rows", "peak_mib": 110},
      {**row, "case": "rows", "size": 10, "peak_mib": 1110},
    ]
  )
  assert table.splitlines()[2:] == [
    "| floor | 1 | 100 |  | 1.2 | 0.00 |",
    "| rows | 1 | 110 |  | 1.2 | 0.00 |",
    "| rows | 10 | 1,110 | +1,000 | 1.2 | 0.00 |",
  ]


def test_shards_are_written_and_read(tmp_path: pathlib.Path):
  run.shards(33, tmp_path)
  assert len(list((tmp_path / "latents").glob("train-*.npy"))) == 33
