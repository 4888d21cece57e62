"""Tensors are read from PyTorch's files, and nothing else is."""

import hashlib

import numpy as np
import pytest
import torch_bytes
from torch_bytes import integer, storage, tensor, text, tuple_of

from jaxflow.errors import UsageError
from jaxflow.pretrained import torch_files

SIX = np.arange(6, dtype="<f4")
WRITERS = {"zip": torch_bytes.write_zip, "legacy": torch_bytes.write_legacy}
forms = pytest.mark.parametrize("form", WRITERS)


def read(path, *names):
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  return torch_files.read(str(path), names, sha256=digest, source="a file")


def message(path, *names):
  with pytest.raises(UsageError) as error:
    read(path, *names)
  line = str(error.value)
  assert "\n" not in line
  assert line.startswith(f"file={path}: ")
  assert line.endswith("get a file")
  return line


def write(path, form, items, contents):
  obj = torch_bytes.ordered_dict(items)
  WRITERS[form](path, obj, contents)


def place(form, key="0", size=6, **options):
  return storage(key, size, legacy=form == "legacy", **options)


@pytest.mark.parametrize("form", ["zip", "legacy", "npz"])
def test_arrays_come_back(tmp_path, form):
  path = tmp_path / "file.pth"
  arrays = {"a": SIX.reshape(2, 3), "b": -SIX.reshape(1, 6, 1, 1)}
  torch_bytes.save(path, arrays, form)
  result = read(path, "a", "b")
  assert set(result) == {"a", "b"}
  for key, array in arrays.items():
    assert result[key].dtype == np.float32
    np.testing.assert_array_equal(result[key], array)
  assert set(read(path, "b")) == {"b"}
  assert "it has no c" in message(path, "a", "c")


@forms
def test_tensors_may_share_a_storage(tmp_path, form):
  path = tmp_path / "file.pth"
  items = {
    "transposed": tensor(place(form), (3, 2), (1, 3)),
    "tail": tensor(place(form), (2,), (2,), offset=3),
    "cuda": tensor(place(form, module="torch.cuda"), (1,), (1,)),
  }
  write(path, form, items, {"0": SIX.tobytes()})
  result = read(path, *items)
  np.testing.assert_array_equal(result["transposed"], SIX.reshape(2, 3).T)
  assert result["tail"].tolist() == [3.0, 5.0]
  assert result["cuda"].tolist() == [0.0]


def test_other_types(tmp_path):
  path = tmp_path / "file.pth"
  place = storage("0", 6, kind="DoubleStorage")
  write(path, "zip", {"a": tensor(place, (6,), (1,))}, {"0": SIX.astype("<f8")})
  np.testing.assert_array_equal(read(path, "a")["a"], SIX)


def attack(module, attribute, argument):
  return torch_bytes.name(module, attribute) + tuple_of(text(argument)) + b"R"


@forms
@pytest.mark.parametrize(
  ("module", "attribute"),
  [
    *(("posix", "system"), ("os", "system"), ("builtins", "exec")),
    *(("__builtin__", "eval"), ("torch", "load"), ("numpy", "load")),
    ("torch._utils", "_rebuild_tensor.__globals__"),
  ],
)
def test_a_program_is_refused(tmp_path, form, module, attribute):
  path, trace = tmp_path / "file.pth", tmp_path / "trace"
  items = {"a": attack(module, attribute, f"touch {trace}")}
  write(path, form, items, {"0": SIX.tobytes()})
  assert f"it asks for {module}.{attribute}, no tensor" in message(path, "a")
  assert not trace.exists()


def test_the_attack_would_have_worked(tmp_path):
  # Or the test above would show nothing.
  import pickle

  trace = tmp_path / "trace"
  program = attack("posix", "system", f"touch {trace}")
  assert pickle.loads(torch_bytes.pickled(program)) == 0
  assert trace.exists()


def test_an_npz_of_objects_is_refused(tmp_path):
  path = tmp_path / "file.npz"
  np.savez(path, a=np.array([{}], dtype=object))
  assert "cannot be read as tensors" in message(path, "a")


@forms
@pytest.mark.parametrize(
  ("shape", "stride", "offset"),
  [
    *(((7,), (1,), 0), ((2,), (6,), 0), ((2,), (1,), 5)),
    *(((2,), (-1,), 3), ((2,), (1,), -1), ((-1,), (1,), 0)),
    *(((2,), (1, 1), 0), ((100, 6), (0, 1), 0)),
  ],
)
def test_a_tensor_stays_in_its_storage(tmp_path, form, shape, stride, offset):
  path = tmp_path / "file.pth"
  items = {"a": tensor(place(form), shape, stride, offset)}
  write(path, form, items, {"0": SIX.tobytes()})
  assert "cannot be read as tensors" in message(path, "a")


@forms
def test_a_storage_has_the_announced_length(tmp_path, form):
  path = tmp_path / "file.pth"
  items = {"a": tensor(place(form, size=5), (5,), (1,))}
  write(path, form, items, {"0": SIX.tobytes()})
  assert "24 bytes where 20 are announced" in message(path, "a")


@pytest.mark.parametrize("form", ["zip", "legacy", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_file(tmp_path, form, share):
  path = tmp_path / "file.pth"
  torch_bytes.save(path, {"a": np.ones(1000)}, form)
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  assert "cannot be read as tensors" in message(path, "a")


@forms
@pytest.mark.parametrize("obj", [integer(3), torch_bytes.name("torch", "x")])
def test_what_is_no_dict_of_tensors(tmp_path, form, obj):
  path = tmp_path / "file.pth"
  WRITERS[form](path, obj, {})
  message(path, "a")
  write(path, form, {"a": integer(3)}, {})
  assert "a is no tensor" in message(path, "a")


def test_another_file_is_named_with_both_hashes(tmp_path):
  path = tmp_path / "file.pth"
  torch_bytes.save(path, {"a": SIX}, "zip")
  found = hashlib.sha256(path.read_bytes()).hexdigest()
  with pytest.raises(UsageError) as error:
    torch_files.read(str(path), ["a"], sha256="ab" * 32, source="a file")
  assert str(error.value) == (
    f"file={path}: its sha256 is {found}, not {'ab' * 32}; get a file, or give "
    "the sha256 of a conversion that you trust"
  )


def test_a_missing_file(tmp_path):
  path = tmp_path / "file.pth"
  with pytest.raises(UsageError) as error:
    torch_files.read(str(path), ["a"], sha256="", source="a file")
  line = f"file={path}: there is no such file; get a file"
  assert str(error.value) == line
