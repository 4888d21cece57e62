"""Compiled programs are kept for one user and one type of CPU."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest
import tiny

from jaxflow.parallel import compile_cache

REPOSITORY = pathlib.Path(__file__).parents[2]
OPTIONS = (
  *("jax_compilation_cache_dir", "jax_compilation_cache_max_size"),
  *("jax_enable_compilation_cache",),
  *("jax_persistent_cache_min_compile_time_secs",),
)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
  """Give JAX no cache, and the user an empty cache folder."""
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  jax.config.update("jax_compilation_cache_dir", None)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(
    compile_cache.platformdirs,
    "user_cache_path",
    lambda name: tmp_path / name,
  )
  yield tmp_path / "jaxflow"
  for name, value in before.items():
    jax.config.update(name, value)
  compile_cache.compilation_cache.reset_cache()


def test_programs_are_kept_in_the_folder_of_the_user(fresh, monkeypatch):
  monkeypatch.setattr(compile_cache, "LEAST_SECONDS", 0.0)
  compile_cache.begin(log=pytest.fail)
  (folder,) = fresh.iterdir()
  assert folder.name == f"xla-{compile_cache.cpu_type()}"
  assert folder.stat().st_mode & 0o777 == 0o700
  jax.jit(lambda x: x * 3 + 17)(2.0)
  assert [*folder.glob("*-cache")]
  assert jax.config.jax_compilation_cache_max_size == compile_cache.MOST_BYTES


@pytest.mark.parametrize("made_before", [False, True])
def test_what_others_can_write_is_not_read(fresh, made_before):
  folder = fresh / f"xla-{compile_cache.cpu_type()}"
  folder.mkdir(parents=True)
  folder.chmod(0o770 if made_before else 0o700)
  lines = []
  compile_cache.begin(log=lines.append)
  used = jax.config.jax_compilation_cache_dir
  assert (used is None) == made_before
  assert [str(folder.parent) in line for line in lines] == [True] * made_before
  # It is said once.
  compile_cache.begin(log=pytest.fail)


def test_what_cannot_be_written_is_one_line(fresh):
  fresh.write_text("a file where a folder is to be")
  lines = []
  compile_cache.begin(log=lines.append)
  (line,) = lines
  assert "programs are not kept" in line and str(fresh) in line
  assert jax.config.jax_compilation_cache_dir is None


def test_what_jax_was_told_stands(fresh, tmp_path):
  own = str(tmp_path / "own")
  jax.config.update("jax_compilation_cache_dir", own)
  compile_cache.begin(log=pytest.fail)
  assert jax.config.jax_compilation_cache_dir == own
  jax.config.update("jax_compilation_cache_dir", None)
  jax.config.update("jax_enable_compilation_cache", False)
  compile_cache.begin(log=pytest.fail)
  assert jax.config.jax_compilation_cache_dir is None
  assert not fresh.exists()


def test_a_folder_may_be_given(fresh, tmp_path):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "other"))
  compile_cache.begin(str(tmp_path / "given"), log=pytest.fail)
  used = pathlib.Path(jax.config.jax_compilation_cache_dir)
  assert used.parent == tmp_path / "given" and used.is_dir()


def test_without_it_every_program_is_compiled(fresh, monkeypatch):
  monkeypatch.setattr(compile_cache, "LEAST_SECONDS", 0.0)
  compile_cache.begin(log=pytest.fail)
  (folder,) = fresh.iterdir()
  with compile_cache.without():
    jax.jit(lambda x: x * 5 + 19)(2.0)
    assert not [*folder.glob("*-cache")]
  jax.jit(lambda x: x * 7 + 23)(2.0)
  assert [*folder.glob("*-cache")]


def test_cpus_with_other_instructions_have_other_folders(monkeypatch):
  core = (
    "processor\t: 0\nvendor_id\t: A\nmodel\t\t: 17\ncpu MHz\t: {}\nflags\t: {}"
  )
  named = [
    compile_cache._first_core(core.format(*told) + "\n\nprocessor\t: 1\n")
    for told in ((2450.0, "fpu avx2"), (3000.0, "fpu avx2"), (2450.0, "fpu"))
  ]
  # How fast it runs at the moment is no type.
  assert named[0] == named[1] != named[2]
  assert "fpu avx2" in named[0][-1]


def command(folder, *flags, **environment):
  """Train on the ring in a process of its own; return what it prints."""
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
  result = subprocess.run(
    [
      *(sys.executable, "-m", "jaxflow"),
      *tiny.train_command(folder, "run", "flow_matching", "mesh.data=1"),
      *flags,
    ],
    env={k: v for k, v in environment.items() if v is not None},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  return result.stdout


def test_the_command_line_keeps_programs(tmp_path):
  home, run = tmp_path / "cache", tmp_path / "run"
  away = {"JAX_COMPILATION_CACHE_DIR": None, "XDG_CACHE_HOME": str(home)}
  flags = "--config.train.steps=5", "--config.checkpoint.every=5"
  command(tmp_path, *flags, "--compile-cache=off", **away)
  assert not (home / "jaxflow").exists()
  first = tiny.state_of(run)
  run.rename(tmp_path / "first")
  command(tmp_path, *flags, **away)
  (folder,) = (home / "jaxflow").iterdir()
  kept = {file.name for file in folder.glob("*-cache")}
  run.rename(tmp_path / "second")
  command(tmp_path, *flags, **away)
  # What compiles quickly is kept where it happens to take longer.
  new = {file.name for file in folder.glob("*-cache")} - kept
  assert not [name for name in new if "train_step" in name]
  assert [name for name in kept if "train_step" in name]
  tiny.assert_same_bits(tiny.state_of(run), first)
