"""Tables and verdicts as text, in READMEs between two marks.

What stands between the marks is made of the results' JSON alone, and a test
makes it again: a table cannot say anything else than its file.
"""

import pathlib
import re
from typing import TYPE_CHECKING, Any

from jaxflow.files import replace_file

if TYPE_CHECKING:
  from experiments.runner.results import Results
  from experiments.runner.study import Column, Study

_MARKS = "<!-- {} -->", "<!-- end -->"
_BRACKETS = """\
In brackets stand the two sides of a check, the second times the factor that the
sentence names, and the mean difference ± its standard error over seeds."""


def table(study: "Study", results: "Results") -> list[list[str]]:
  """Return heading and lines of the table: mean ± deviation over seeds."""
  labels = list(dict.fromkeys(k for r in results.rows for k in r["labels"]))
  lines = [[*labels, *(column.heading for column in study.columns)]]
  for row in results.rows:
    cells = [_label(row["labels"].get(name, "")) for name in labels]
    lines.append(cells + [_cell(row, column) for column in study.columns])
  return lines


def _label(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(row: dict[str, Any], column: "Column") -> str:
  """Write a number, and how many of its runs had none."""
  number = row["numbers"].get(column.metric)
  if number is None:
    return ""
  missing = sum(value is None for value in number["values"])
  lost = f" ({missing} {column.missing})" if missing else ""
  if number["mean"] is None:
    return column.missing
  text = format(number["mean"], column.format)
  deviation = number["deviation"]
  if deviation:
    text += f" ± {deviation:{column.format}}"
  return text + lost


def verdicts(results: "Results") -> list[str]:
  """Return the verdicts as lines of Markdown, with the numbers behind them."""
  lines = []
  for claim in results.claims:
    lines += [f"**{claim['verdict'].capitalize()}**: {claim['claim']}", ""]
    for check in claim["checks"]:
      lines.append(f"- {check['verdict']}: {check['says']} ({_numbers(check)})")
    if claim["limits"]:
      lines.append(f"- out of reach here: {claim['limits']}")
    lines.append("")
  return lines[:-1]


def _numbers(check: dict[str, Any]) -> str:
  """Write both sides of a check, and their difference with its error."""
  left, right = (
    " ".join(
      "diverged" if x is None else f"{x:.3g}"
      for x in dict.fromkeys(check[side])
    )
    if len(set(check[side])) == 1 or None in check[side]
    else f"{sum(check[side]) / len(check[side]):.3g}"
    for side in ("left", "right")
  )
  if check["difference"] is None:
    return f"{left} against {right}"
  difference, error = check["difference"], check["error"]
  # A difference of rounding errors is none.
  difference = 0.0 if abs(difference) < 1e-12 else difference
  return f"{left} against {right}: {difference:+.2g} ± {error:.2g}"


def as_text(study: "Study", results: "Results") -> str:
  """Return table and verdicts for a terminal."""
  lines = table(study, results)
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  text = [
    "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))
    for line in lines
  ]
  text.insert(1, "  ".join("-" * width for width in widths))
  return "\n".join(["", *text, "", *verdicts(results), ""])


def blocks(study: "Study", results: "Results") -> dict[str, str]:
  """Return what stands between marks of a README, by the mark's name."""
  heading, *lines = table(study, results)
  count = len(heading) - len(study.columns)
  rule = ["---"] * count + ["--:"] * len(study.columns)
  rows = [heading, rule, *lines]
  about = results.about
  took = about["seconds_training"]
  time = f"{took} s" if took < 120 else f"{took / 60:.0f} min"
  trains = f"; {time} of training" if took else ""
  return {
    "table": "\n".join("| " + " | ".join(row) + " |" for row in rows),
    "verdict": "\n".join([_BRACKETS, "", *verdicts(results)]),
    "run": (
      f"    {about['command']}            # writes results/{trains}\n"
      f"    {about['command']} --quick    # under a minute; prints only\n\n"
      f"{len(about['seeds'])} seeds; {about['hardware']}, Python "
      f"{about['python']}, JAX {about['jax']}, {about['date']}."
    ),
  }


def filled(text: str, parts: dict[str, str]) -> str:
  """Return a text whose parts between marks are replaced.

  Raises:
    ValueError: If a mark is missing.
  """
  end = re.escape(_MARKS[1])
  for name, part in parts.items():
    begin = _MARKS[0].format(name)
    pattern = re.compile(rf"({re.escape(begin)}\n).*?({end})", re.DOTALL)
    if len(pattern.findall(text)) != 1:
      raise ValueError(f"give one part between {begin!r} and {_MARKS[1]!r}")
    text = pattern.sub(lambda match, p=part: f"{match[1]}{p}\n{match[2]}", text)
  return text


def write(study: "Study", results: "Results") -> None:
  """Write the results into the study's README, and all into the page."""
  rewrite(study.folder / "README.md", blocks(study, results))
  page = study.folder.parent / "README.md"
  rewrite(page, {"verdicts": verdict_page(study.folder.parent)})


def rewrite(path: pathlib.Path, parts: dict[str, str]) -> None:
  """Replace the parts of a file."""
  text = filled(path.read_text(), parts)
  replace_file(path, lambda part: part.write_text(text))


def verdict_page(folder: pathlib.Path) -> str:
  """Return one table of all verdicts, in the order of the experiments' names.

  Args:
    folder: Where all experiments stand.
  """
  from experiments.runner.results import Results

  lines = ["| experiment | claim | verdict |", "|---|---|---|"]
  for file in sorted(folder.glob("*/results/*.json")):
    name = file.parents[1].name
    if file.stem != name or not Results.is_one(file):
      continue
    results = Results.load(file)
    for number, claim in enumerate(results.claims):
      link = f"[{name}]({name})" if number == 0 else ""
      lines.append(f"| {link} | {claim['claim']} | {claim['verdict']} |")
  return "\n".join(lines)
