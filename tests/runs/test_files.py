"""Files of a run: whole or not at all, and nothing outside of its folder."""

import errno
import itertools
import os
import pathlib
import secrets
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxflow import api
from jaxflow.data import Pairs
from jaxflow.data.folders import writing
from jaxflow.data.folders.shard_folder import ShardFiles
from jaxflow.errors import RunError, UsageError
from jaxflow.files import part_of, replace_file, save_arrays
from jaxflow.parallel import folders
from jaxflow.reports import page
from jaxflow.reports.costs import Cost, Latency
from jaxflow.training.csv_log import CsvLog
from jaxflow.training.tensorboard_log import TensorBoardLog
from jaxflow.training.wandb_log import _number

# What a run writes while it trains, with an evaluation and a best checkpoint.
DURING = (
  *("train.sample_every=20", "evaluation.during.every=20"),
  *("evaluation.during.num=50", "evaluation.during.share=0.9"),
  "evaluation.during.metrics=sliced_wasserstein",
  "evaluation.during.best=sliced_wasserstein",
)


LATENCY = Latency(median=1e-3, p95=2e-3, num=20)
COST = Cost(
  model="run",
  method="flow_matching",
  solver="euler",
  nfe=1,
  batch=8,
  compile_seconds=1.0,
  latency=LATENCY,
  samples_per_second=8000.0,
  memory=10**9,
  flops=1e9,
  network=LATENCY,
  overhead=0.1,
  overhead_error=0.02,
  flops_overhead=0.0,
  operations_overhead=None,
  scores={},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  return tiny.train(folder, "run", "flow_matching", *DURING)


@pytest.fixture
def workdir(trained, tmp_path):
  """A copy of the run, as it comes from somebody else."""
  return pathlib.Path(shutil.copytree(trained, tmp_path / "received" / "run"))


@pytest.fixture
def outside(tmp_path):
  """A folder of the user, with a file of theirs."""
  folder = tmp_path / "outside"
  folder.mkdir()
  (folder / "mine.txt").write_text("mine")
  return folder


def go_on(workdir, *flags):
  command = tiny.train_command(
    workdir.parent, workdir.name, "flow_matching", *DURING, "train.steps=80"
  )
  return tiny.run(*command, *flags)


def put_link(path, target):
  """Put a link in the place of what a path is."""
  if path.is_dir():
    shutil.rmtree(path)
  path.unlink(missing_ok=True)
  path.parent.mkdir(exist_ok=True)
  path.symlink_to(target)


def no_space(*args, **options):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_from(monkeypatch, number):
  """Let the disk be full from the flush of this number on."""
  flush, count = os.fsync, itertools.count()

  def limited(file):
    return no_space() if next(count) >= number else flush(file)

  monkeypatch.setattr(os, "fsync", limited)


class TestOneFile:
  @pytest.mark.parametrize("target", ["mine.txt", "absent.txt"])
  def test_a_link_is_replaced(self, tmp_path, outside, target):
    path = tmp_path / "a.txt"
    path.symlink_to(outside / target)
    before = tiny.checksums(outside)
    replace_file(path, lambda file: file.write_text("new"))
    assert not path.is_symlink() and path.read_text() == "new"
    assert tiny.checksums(outside) == before

  def test_names_that_can_be_guessed_are_not_used(self, tmp_path, outside):
    mine = outside / "mine.txt"
    for name in ("a.txt.part", "a.txt.tmp", f".a.txt.{os.getpid()}.tmp"):
      (tmp_path / name).symlink_to(mine)
    replace_file(tmp_path / "a.txt", lambda file: file.write_text("new"))
    assert mine.read_text() == "mine"

  def test_a_draft_is_a_file_of_ours(self, tmp_path, outside, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda count: "known")
    (tmp_path / ".a.txt.known.tmp").symlink_to(outside / "absent.txt")
    with pytest.raises(RunError, match=r"a.txt cannot be written \(File exis"):
      replace_file(tmp_path / "a.txt", lambda file: file.write_text("new"))
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]

  def test_others_may_read_it_as_any_other_file(self, tmp_path):
    ours, other = tmp_path / "a.txt", tmp_path / "b.txt"
    replace_file(ours, lambda file: file.write_text("a"))
    other.write_text("b")
    assert ours.stat().st_mode == other.stat().st_mode

  @pytest.mark.parametrize(
    "write",
    [
      lambda path: save_arrays(path, {"a": np.zeros(3)}),
      lambda path: replace_file(path, lambda file: file.write_text("new")),
      lambda path: replace_file(path, no_space),
    ],
  )
  def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch, write):
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RunError) as error:
      write(path)
    assert str(error.value) == (
      f"{path} cannot be written (No space left on device): make room, or make "
      "its folder writable"
    )
    assert [x.name for x in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"

  def test_reasons_without_a_number(self, tmp_path):
    def write(file):
      raise RuntimeError("8 requested\nand 0 written")

    with pytest.raises(
      RunError, match=r"written \(8 requested and 0 written\)"
    ):
      replace_file(tmp_path / "a", write)


class TestLinks:
  def test_parts_of_a_folder(self, tmp_path, outside):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "there").mkdir()
    (folder / "inner").symlink_to("there")
    (folder / "up").symlink_to("../outside")
    (folder / "nowhere").symlink_to(outside / "absent")
    for name in ("there", "inner", "new", "there/new"):
      assert part_of(folder, name) == folder / name
    for name in ("up", "up/mine.txt", "nowhere"):
      with pytest.raises(UsageError) as error:
        part_of(folder, name)
      assert str(error.value).startswith(f"{folder / name} is a link out of ")
      assert "delete the link" in str(error.value)
    # A whole run may be elsewhere.
    (tmp_path / "short").symlink_to(folder)
    assert part_of(tmp_path / "short", "there") == tmp_path / "short" / "there"

  def test_files_of_a_run_are_replaced(self, workdir, outside):
    tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1")
    names = [
      *("config.json", "metrics.csv", "evaluations.csv", "best.json"),
      *("evaluation.json", "samples/00000060.png", "samples/00000080.png"),
    ]
    for name in names:
      path, there = workdir / name, outside / name.replace("/", "_")
      if path.exists():
        shutil.copy(path, there)
      put_link(path, there)
    before = tiny.checksums(outside)
    assert go_on(workdir).code == 0
    result = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1")
    assert result.code == 0, result.err
    assert tiny.checksums(outside) == before
    links = [name for name in names if (workdir / name).is_symlink()]
    # No evaluation was better than the best one before.
    assert set(links) <= {"best.json"}
    rows = (workdir / "metrics.csv").read_text().splitlines()
    steps = [row.split(",")[0] for row in rows]
    assert steps == ["step", "50", "60", "70", "80"]

  @pytest.mark.parametrize("target", ["", "absent"])
  @pytest.mark.parametrize(
    "name",
    *[["best", "checkpoints", "evaluation", "samples", "tensorboard", "wandb"]],
  )
  def test_folders_of_a_training_stay_inside(
    self, workdir, outside, name, target
  ):
    put_link(workdir / name, outside / target)
    before = tiny.checksums(outside), tiny.checksums(workdir / "checkpoints")
    result = go_on(workdir)
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"{workdir / name} is a link out of" in result.err
    assert tiny.checksums(outside) == before[0]
    assert tiny.checksums(workdir / "checkpoints") == before[1]
    assert not (outside / "absent").exists()

  def test_a_checkpoint_that_is_being_written_is_no_link(
    self, workdir, outside
  ):
    name = "60.orbax-checkpoint-tmp"
    (workdir / "checkpoints" / name).symlink_to(outside)
    before = tiny.checksums(outside)
    result = go_on(workdir)
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"{name} is a link out of" in result.err
    assert tiny.checksums(outside) == before

  def test_an_evaluation_stays_inside(self, workdir, outside):
    put_link(workdir / "evaluation", outside)
    result = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "evaluation is a link out of" in result.err
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]

  @pytest.mark.parametrize("name", ["round_0", "pairs_1", "round_1"])
  def test_rounds_stay_inside(self, tmp_path, outside, name):
    workdir = tmp_path / "rounds"
    workdir.mkdir()
    (workdir / name).symlink_to(outside)
    result = tiny.run(
      "rectify",
      f"--config={tiny.config_file(tmp_path)}:reflow",
      f"--workdir={workdir}",
    )
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"{workdir / name} is a link out of" in result.err
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]

  def test_probes_and_tokens_follow_no_link(
    self, tmp_path, outside, monkeypatch
  ):
    for name in (".writable", ".shared"):
      (tmp_path / name).symlink_to(outside / "absent")
    monkeypatch.setattr(folders.processes, "count", lambda: 2)
    monkeypatch.setattr(folders.processes, "check_same", lambda *args: None)
    for name in ("once", "together"):
      monkeypatch.setattr(folders.processes, name, lambda action: action())
    folders.check_shared(tmp_path)
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]

  def test_logs_follow_no_link(self, tmp_path, outside):
    mine = outside / "mine.txt"
    (tmp_path / "metrics.csv").symlink_to(mine)
    log = CsvLog(tmp_path)
    log.on_log(1, {"loss": 1.0})
    assert not (tmp_path / "metrics.csv").is_symlink()
    put_link(tmp_path / "metrics.csv", mine)
    with pytest.raises(RunError, match=r"metrics.csv cannot be written"):
      log.on_log(2, {"loss": 1.0})
    put_link(tmp_path / "wandb" / "run_id", outside / "absent")
    _number(tmp_path / "wandb" / "run_id", new=True)
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]
    assert mine.read_text() == "mine"

  def test_events_have_names_that_nobody_knows(self, tmp_path):
    for _ in range(2):
      TensorBoardLog(tmp_path).close()
    names = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert len(names) == 2
    assert len({name.rsplit(".", 1)[1] for name in names}) == 2


class TestReport:
  @pytest.fixture
  def secret(self, outside):
    path = outside / "secret.png"
    Image.new("RGB", (40, 40), "red").save(path)
    return path

  def page(self, workdir):
    result = tiny.run("report", f"--workdir={workdir}", "--num=20")
    assert result.code == 0, result.err
    return (workdir / "report.html").read_text()

  def test_pictures_of_training(self, workdir, secret):
    title = "Samples during training, from the same noise"
    put_link(workdir / "samples" / "00000060.png", secret)
    page = self.page(workdir)
    assert f'>{title}</h2>\n<p class="note">left out: ' in page
    assert "00000060.png is a link out of" in page

  def test_a_folder_of_pictures(self, workdir, secret, outside):
    (outside / "00000020.png").symlink_to(secret)
    put_link(workdir / "samples", outside)
    assert "00000020.png is a link out of" in self.page(workdir)

  def test_tables(self, workdir, outside):
    (outside / "mine.csv").write_text("step,loss\n1,password\n")
    put_link(workdir / "metrics.csv", outside / "mine.csv")
    page = self.page(workdir)
    assert "password" not in page
    assert "metrics.csv is a link out of" in page

  @pytest.mark.parametrize(
    "name", ["evaluation.json", "bench.json", "bench.png"]
  )
  def test_other_files(self, workdir, secret, name, monkeypatch):
    monkeypatch.setattr(page, "read_costs", lambda path: [COST])
    put_link(workdir / name, secret)
    result = tiny.run("report", f"--workdir={workdir}", "--num=20")
    assert result.code == 2 and result.err.count("\n") == 1
    assert f"{name} is a link out of" in result.err
    assert not (workdir / "report.html").exists()


class TestFullDisk:
  def test_samples_are_replaced_as_a_whole(
    self, workdir, tmp_path, monkeypatch
  ):
    out = tmp_path / "out" / "a.npz"
    command = ("sample", f"--workdir={workdir}", "--num=8", f"--out={out}")
    assert tiny.run(*command).code == 0
    good = out.read_bytes()
    # The first flush is of the check before the work.
    full_from(monkeypatch, 1)
    result = tiny.run(*command, "--seed=1")
    assert result.code == 1
    assert result.err == (
      f"jaxflow sample: {out} cannot be written (No space left on device): "
      "make room, or make its folder writable\n"
    )
    assert out.read_bytes() == good
    assert [path.name for path in out.parent.iterdir()] == ["a.npz"]

  def test_samples_are_not_drawn_for_nothing(
    self, workdir, tmp_path, monkeypatch
  ):
    monkeypatch.setattr(api, "load", None)
    full_from(monkeypatch, 0)
    out = tmp_path / "a.npz"
    result = tiny.run("sample", f"--workdir={workdir}", f"--out={out}")
    assert result.code == 2 and result.err.count("\n") == 1
    assert (
      "(No space left on device): give another file, make roo" in result.err
    )

  def test_a_training_that_cannot_begin(self, tmp_path, monkeypatch):
    full_from(monkeypatch, 0)
    command = tiny.train_command(tmp_path, "run", "flow_matching")
    result = tiny.run(*command)
    assert result.code == 2 and not result.out
    assert result.err.count("\n") == 1
    assert "run cannot be written (No space left on device)" in result.err
    assert not list((tmp_path / "run").iterdir())

  def test_a_config_that_cannot_be_written(self, tmp_path, monkeypatch):
    full_from(monkeypatch, 1)
    result = tiny.run(*tiny.train_command(tmp_path, "run", "flow_matching"))
    assert result.code == 1 and result.err.count("\n") == 1
    assert "config.json cannot be written (No space left" in result.err
    assert not list((tmp_path / "run").iterdir())

  def test_a_training_ends_in_one_line(self, tmp_path):
    """Checkpoints have files above the limit, all else stays below."""
    command = tiny.train_command(
      *(tmp_path, "run", "flow_matching", "model.width=256", "model.depth=2")
    )
    code = (
      "import resource, sys\n"
      "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
      "from jaxflow.commands import main\n"
      "sys.exit(main.run(sys.argv))\n"
    )
    result = subprocess.run(
      [sys.executable, "-c", code, *command],
      capture_output=True,
      text=True,
      check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("jaxflow train: a checkpoint in ")

  def test_logs_tell_it_in_one_line(self, tmp_path, monkeypatch):
    log, board = CsvLog(tmp_path), TensorBoardLog(tmp_path)
    scalars = {f"metric {number}": 1.0 for number in range(50)}
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", no_space)
    for writer, name in ((log, "metrics.csv"), (board, "tensorboard")):
      with pytest.raises(RunError) as error:
        writer.on_log(1, scalars)
      assert str(error.value) == (
        f"{tmp_path / name} cannot be written (No space left on device): make "
        "room, or make its folder writable"
      )
    monkeypatch.setattr(os, "fsync", flush)
    board.close()

  def test_pairs_that_cannot_begin(self, tmp_path, monkeypatch):
    full_from(monkeypatch, 0)
    with pytest.raises(UsageError) as error:
      Pairs.create(tmp_path / "pairs", {"num": 4})
    assert str(error.value) == (
      f"folder={tmp_path / 'pairs'} cannot be written (No space left on "
      "device): give another folder, or make it writable"
    )
    assert not list((tmp_path / "pairs").iterdir())

  def test_shards_are_not_made_for_nothing(self, tmp_path, monkeypatch):
    files = ShardFiles(tmp_path, "pairs", ".npy", num=4, size=2)
    full_from(monkeypatch, 0)
    with pytest.raises(RunError, match=r"pairs-00000.* \(No space left"):
      writing.write_missing_shards(
        files,
        lambda first, size: pytest.fail("it was made"),
        lambda shard, arrays: None,
        batch_size=2,
        devices=1,
        unit="pairs",
        check=lambda names: None,
        log=print,
      )
