"""Tables of the scaling experiments, of programs that fit and that do not."""

import importlib.util
import pathlib

import pytest

from jaxflow.compilation import CHIPS

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
  file = FOLDER / name / "run.py"
  specification = importlib.util.spec_from_file_location(name, file)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module


scaling, accelerator = load("scaling"), load("accelerator")

FITS = {
  "topology": "v5p:2x2x2",
  "samples": 64,
  "memory": {"parameters": 2**30},
  "temporary": 2**30,
  "total": 2**31,
  "limit": 2**34,
  "fits": True,
  "flops": 459e10,
  "collectives": {"all-reduce": {"count": 1, "bytes": 3e9, "sent": 6e9}},
  "sent": 6e9,
  "compile_seconds": 2.0,
  "cpu_seconds": 1.0,
}
REFUSED = {
  **FITS,
  "temporary": None,
  "fits": False,
  "flops": None,
  "collectives": {},
  "sent": 0.0,
}


def cells(line):
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_does_not_fit_leaves_cells_blank():
  entries = {scaling.BASELINE: FITS, "other": REFUSED}
  *_, fits, refused = scaling.methods_table(entries)
  assert cells(fits)[1:] == ["573.8", "1.000", "1.00", "3 GB"]
  memory = "2.00 of 16.00 GiB: no fit"
  assert cells(refused) == ["`other`", "", "", memory, ""]
  *_, fits, refused = scaling.weak_table(entries)
  # 8 samples a chip take 10 ms, and so do 6 GB at 600 GB/s.
  assert cells(fits)[2:5] == ["10 ms", "6 GB", "10 ms"]
  assert cells(fits)[6:] == ["8", "128"]
  assert cells(refused) == ["other", "8", *[""] * 6]
  *_, refused = scaling.pods_table(entries)
  assert "**does not fit**" in refused


def test_a_baseline_that_does_not_fit_leaves_ratios_blank():
  entries = {scaling.BASELINE: REFUSED, "other": FITS}
  *_, other = scaling.methods_table(entries)
  assert cells(other) == ["`other`", "573.8", "", "", "3 GB"]


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA A100 80GB PCIe", 312e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA L40", 181e12),
    ("NVIDIA L40S", 362e12),
    ("TPU v4", CHIPS["v4"].peak_flops),
    ("TPU v5 lite", CHIPS["v5e"].peak_flops),
    ("TPU v5", CHIPS["v5p"].peak_flops),
    ("TPU v6 lite", CHIPS["v6e"].peak_flops),
    # No bfloat16; a part of a device; a device that is none of these.
    ("Tesla V100-SXM2-16GB", None),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ("cpu", None),
  ],
)
def test_peaks_by_the_names_that_devices_have(kind, peak):
  assert accelerator.peak_of(kind) == peak
