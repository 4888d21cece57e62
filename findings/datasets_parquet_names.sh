#!/usr/bin/env bash
# datasets 5.2.0: a Parquet file of a split with a name of its own is skipped
# beside files of known splits, and read in a folder `data/`.
#
# `load_dataset` on a folder with train-00000-of-00001.parquet and
# other-00000-of-00001.parquet gives the split "train" alone. The rows of the
# second file are not there, and nothing is said. The same two files in a
# subfolder `data/` give both splits. Who counts on a set being whole compares
# the files with those that the splits name (`builder.config.data_files`).
#
# Seen with datasets 5.2.0, pyarrow 26.0.1 on Python 3.11:
#   in the folder: {'train': 3}
#   in data/: {'train': 3, 'other': 5}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import pathlib
import sys

import datasets
import pyarrow
from pyarrow import parquet

datasets.disable_progress_bars()
root, found = pathlib.Path(sys.argv[1]), {}
for name, place in (("in the folder", "."), ("in data/", "data")):
  folder = root / name.replace("/", "")
  (folder / place).mkdir(parents=True)
  for split, count in (("train", 3), ("other", 5)):
    path = folder / place / f"{split}-00000-of-00001.parquet"
    parquet.write_table(pyarrow.table({"x": list(range(count))}), path)
  loaded = datasets.load_dataset(str(folder), cache_dir=str(root / "cache"))
  found[name] = {split: len(rows) for split, rows in loaded.items()}
  print(f"{name}: {found[name]}")
expected = {"in the folder": {"train": 3}, "in data/": {"train": 3, "other": 5}}
assert found == expected, "other files are read now"
PYTHON
