#!/usr/bin/env bash
# webdataset 1.0.2: random access, `wids`, is no longer in the package.
#
# Up to 0.2 the package brought a second module, `wids`, whose ShardListDataset
# reads a sample of tar files by its number. In 1.0.2 `import wids` fails, and
# webdataset exports no ShardListDataset. Samples by number need an index of
# one's own over the tar files.
#
# Seen on Python 3.11:
#   webdataset 0.2.111: wids True, []
#   webdataset 1.0.2: wids False, []
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.2.111 1.0.2; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "webdataset==$version"
  "$folder/$version/bin/python" - "$version" <<'PYTHON'
import importlib.util
import sys

import webdataset

there = importlib.util.find_spec("wids") is not None
indexed = [name for name in dir(webdataset) if "ShardListDataset" in name]
print(f"webdataset {sys.argv[1]}: wids {there}, {indexed}")
assert there == (sys.argv[1] != "1.0.2") and not indexed, "it has changed"
PYTHON
done
