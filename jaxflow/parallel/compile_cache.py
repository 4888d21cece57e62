"""JAX's cache of compiled programs on the disk of one user.

JAX keys a program by its code, its options, the versions of JAX and XLA, and
the devices. Programs of a CPU use whatever instructions it has, so a CPU of
another type has a folder of its own besides: a home of a cluster is read by
machines of many types.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import platform
import stat
from collections.abc import Callable, Iterator

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

from jaxflow.errors import RunError
from jaxflow.files import expanded, probe

# Bytes after which the programs that were not used for longest are removed.
MOST_BYTES = 2 * 2**30
# Programs that compile faster are not worth a file.
LEAST_SECONDS = 0.1


def begin(
  where: str = "auto", *, log: Callable[[str], None] = lambda line: None
) -> None:
  """Let JAX keep the programs that it compiles, and read those it has.

  What the user has told JAX stands: a folder (JAX_COMPILATION_CACHE_DIR), or
  that there be no cache (JAX_ENABLE_COMPILATION_CACHE=false). A folder that
  cannot be written, or that others can write, is not used, with a line.

  Args:
    where: "auto", the cache folder of the user on this platform; "off"; or a
      folder.
    log: Takes the line.

  Raises:
    UsageError: If `where` is no path of this machine.
  """
  if where == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return
  # JAX adds its options to the config while it is imported.
  off = not jax.config.jax_enable_compilation_cache  # pyright: ignore
  told = jax.config.jax_compilation_cache_dir  # pyright: ignore
  if off or (told and where == "auto"):
    return
  given = None if where == "auto" else expanded("--compile-cache", where)
  folder = pathlib.Path(given or platformdirs.user_cache_path("jaxflow"))
  try:
    folder = _own(folder / f"xla-{cpu_type()}")
  except (OSError, RunError) as error:
    why = error.strerror if isinstance(error, OSError) else error
    log(
      f"compiled programs are not kept: {folder}: {why}; "
      "--compile-cache=FOLDER keeps them elsewhere, --compile-cache=off is "
      "silent"
    )
    jax.config.update("jax_enable_compilation_cache", False)
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
  # JAX looks once, at what it compiles first.
  compilation_cache.reset_cache()


@contextlib.contextmanager
def without() -> Iterator[None]:
  """Compile anew in this context: to measure how long it takes."""
  # JAX adds its options to the config while it is imported.
  before = jax.config.jax_enable_compilation_cache  # pyright: ignore
  jax.config.update("jax_enable_compilation_cache", False)
  compilation_cache.reset_cache()
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def _own(folder: pathlib.Path) -> pathlib.Path:
  """Make a folder that its user alone can write, or raise.

  Programs in it run as they are read.
  """
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  found = folder.stat()
  if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
    raise RunError("it belongs to another user")
  if os.name == "posix" and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
    raise RunError("others can write it")
  probe(folder / "probe")
  return folder


@functools.cache
def cpu_type() -> str:
  """Return a name for CPUs with these instructions: eight hex digits."""
  told = [platform.system(), platform.machine(), platform.processor()]
  known = pathlib.Path("/proc/cpuinfo")
  if known.is_file():
    told += _first_core(known.read_text())
  return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _first_core(text: str) -> list[str]:
  """Return the lines of a core that say its model and its instructions."""
  names = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
  core = text.split("\n\n")[0].splitlines()
  return [x for x in core if x.partition(":")[0].strip() in names]
