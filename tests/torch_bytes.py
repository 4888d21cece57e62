"""Files as `torch.save` writes them, opcode by opcode, without PyTorch."""

import struct
import zipfile

import numpy as np


def text(value):
  data = value.encode()
  return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
  return b"J" + struct.pack("<i", value)


def name(module, attribute):
  return b"c" + f"{module}\n{attribute}\n".encode()


def tuple_of(*items):
  return b"(" + b"".join(items) + b"t"


def long(value):
  """Return an integer that four bytes cannot hold."""
  data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(data)]) + data


def pickled(*parts):
  return b"\x80\x02" + b"".join(parts) + b"."


def storage(key, size, *, kind="FloatStorage", module="torch", legacy=False):
  """Return a persistent id; the old form has one place more, for views."""
  items = [text("storage"), name(module, kind), text(key), text("cpu")]
  items.append(integer(size))
  return tuple_of(*items, *([b"N"] if legacy else [])) + b"Q"


def tensor(place, shape, stride, offset=0, *, old=False):
  """Pickle a tensor: a function of a storage, an offset and a layout."""
  items = [place, integer(offset)]
  items += [tuple_of(*map(integer, sizes)) for sizes in (shape, stride)]
  if not old:
    hooks = name("collections", "OrderedDict") + b")R"
    items += [b"\x89", hooks]
  rebuild = "_rebuild_tensor" if old else "_rebuild_tensor_v2"
  return name("torch._utils", rebuild) + tuple_of(*items) + b"R"


def ordered_dict(items):
  """As Python 3 pickles it: empty, then filled."""
  filled = b"".join(text(key) + value for key, value in items.items())
  return name("collections", "OrderedDict") + b")R(" + filled + b"u"


def ordered_dict_of_pairs(items):
  """As Python 2 pickled it: made from a list of pairs."""
  pairs = [b"](" + text(k) + v + b"e" for k, v in items.items()]
  return (
    name("collections", "OrderedDict") + b"](" + b"".join(pairs) + b"e\x85R"
  )


def contiguous(shape):
  return [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]


def write_zip(path, obj, contents):
  """Return the form of version 1.6 and later; contents are bytes by storage."""
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickled(obj))
    archive.writestr("archive/byteorder", "little")
    for key, data in contents.items():
      archive.writestr(f"archive/data/{key}", data)
    archive.writestr("archive/version", "3\n")


def write_legacy(path, obj, contents, itemsize=4):
  """Return the form before."""
  keys = b"](" + b"".join(map(text, contents)) + b"e"
  machine = b"}(" + text("protocol_version") + integer(1001)
  machine += text("little_endian") + b"\x88u"
  parts = [long(0x1950A86A20F9469CFC6C), integer(1001), machine, obj, keys]
  data = b"".join(map(pickled, parts))
  for content in contents.values():
    data += struct.pack("<q", len(content) // itemsize) + content
  path.write_bytes(data)


def save(path, arrays, form):
  """Write float32 arrays, each with a storage of its own."""
  arrays = {k: np.asarray(v, "<f4") for k, v in arrays.items()}
  if form == "npz":
    with path.open("wb") as file:
      np.savez(file, **arrays)
    return
  legacy = form == "legacy"
  # Python 2 numbered storages by address: any text will do.
  keys = {k: f"{10**9 + i}" if legacy else str(i) for i, k in enumerate(arrays)}
  items = {
    k: tensor(
      storage(keys[k], v.size, legacy=legacy),
      v.shape,
      contiguous(v.shape),
      old=legacy,
    )
    for k, v in arrays.items()
  }
  contents = {keys[k]: v.tobytes() for k, v in arrays.items()}
  if legacy:
    write_legacy(path, ordered_dict_of_pairs(items), contents)
  else:
    write_zip(path, ordered_dict(items), contents)
