"""What every test runs under: 8 host devices, strict rank promotion."""

import gc
import importlib.metadata
import os
import tempfile
from unittest import mock

# Tests compile much and compute little: LLVM need not optimise. Without fusion
# emitters compiling takes half the time; from jax 0.11 on there is no choice.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_force_host_platform_device_count=8 "
  "--xla_backend_optimization_level=0 "
  "--xla_llvm_disable_expensive_passes=true "
  # Where collectives run at once, devices can wait for each other for ever: a
  # busy machine of two cores hung within 50 dispatches of an adversarial step
  # over fsdp=4, with eight threads or 64. So scheduled, it made 1,000.
  "--xla_cpu_enable_concurrency_optimized_scheduler=false "
  # XLA ends a process one of whose 8 threads keeps the others waiting for 40 s:
  # on a busy machine that is no deadlock.
  "--xla_cpu_collective_call_terminate_timeout_seconds=600 "
  + "--xla_cpu_use_fusion_emitters=false"
  * (importlib.metadata.version("jaxlib") < "0.11"),
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# All workers and all processes that tests start share compiled programs.
FOLDER = "JAX_COMPILATION_CACHE_DIR"
KEPT = os.environ.get("JAXFLOW_TEST_CACHE")
if KEPT:
  # Tests may change the folder in which they work.
  os.environ[FOLDER] = os.path.abspath(KEPT)
elif FOLDER not in os.environ:
  CACHE = tempfile.TemporaryDirectory()
  os.environ[FOLDER] = CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_compilation_cache_dir", os.environ[FOLDER])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_collection_finish(session):
  """Let the garbage collector pass by what lives until the end."""
  gc.collect()
  gc.freeze()
  # Tracing makes objects by the million, and nearly none of them in cycles.
  gc.set_threshold(20_000, 10, 10)


@pytest.fixture
def x64():
  """Run a test in float64."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def process_as_before():
  """Take back what preparing a topology sets for the whole process."""
  platforms = jax.config.jax_platforms
  with mock.patch.dict(os.environ):
    yield
  jax.config.update("jax_platforms", platforms)


@pytest.fixture(scope="module", autouse=True)
def forget():
  """Free the compiled programs of a module: a worker runs all of them."""
  yield
  jax.clear_caches()
