"""Check the links of the documentation; refresh their line numbers.

A link whose text is code and whose target is a line,

  [`xt = paths.interpolate(path, data, noise, t)`](../jaxflow/losses/x.py#L70)

must quote a line that stands once in that file, and name its number. Any other
relative link must lead to a file, and to a heading if it names one.

  python docs/check_links.py            # 1 if a link is wrong
  python docs/check_links.py --write    # set the line numbers, then check
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*|`[^`]+`)\]\(([^)\s]+)\)")
CODE_LINK = re.compile(r"\[`([^`]+)`\]\(([^)#\s]+)#L(\d+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
  """Return the Markdown files of the project."""
  nested = (sorted((root / x).rglob("*.md")) for x in ("docs", "experiments"))
  return [*sorted(root.glob("*.md")), *(page for x in nested for page in x)]


def line_of(code: str, file: pathlib.Path) -> int:
  """Return the number, from 1, of the one line of a file that holds code.

  Raises:
    ValueError: If no line holds it, or several do.
  """
  lines = file.read_text().splitlines()
  found = [number for number, line in enumerate(lines, 1) if code in line]
  if len(found) == 1:
    return found[0]
  where = f"lines {', '.join(map(str, found))}" if found else "no line"
  raise ValueError(
    f"`{code}` stands in {where} of {file.name}: quote a line that it has once"
  )


def refresh(page: pathlib.Path) -> None:
  """Set the line numbers of a page's code links; leave wrong quotes alone."""

  def renumbered(match):
    code, target, _ = match.groups()
    try:
      number = line_of(code, page.parent / target)
    except (OSError, ValueError):
      return match[0]
    return f"[`{code}`]({target}#L{number})"

  page.write_text(CODE_LINK.sub(renumbered, page.read_text()))


def problems(page: pathlib.Path) -> list[str]:
  """Return what is wrong with the links of a page, one line each."""
  text = FENCE.sub("", page.read_text())
  found = []
  for match in LINK.finditer(text):
    target = match[2]
    if "://" not in target:
      code = CODE_LINK.fullmatch(match[0])
      found.append(
        _code_problem(page, *code.groups())
        if code
        else _file_problem(page, target)
      )
  return [f"{page.name}: {problem}" for problem in found if problem]


def _code_problem(
  page: pathlib.Path, code: str, target: str, number: str
) -> str:
  file = page.parent / target
  if not file.is_file():
    return f"{target} is no file"
  try:
    right = line_of(code, file)
  except ValueError as error:
    return str(error)
  if right == int(number):
    return ""
  return f"`{code}` is line {right} of {target}, not {number}: run --write"


def _file_problem(page: pathlib.Path, target: str) -> str:
  name, _, anchor = target.partition("#")
  file = page.parent / name if name else page
  if not file.exists():
    return f"{target} is no file"
  if anchor and (file.suffix != ".md" or anchor not in _anchors(file)):
    return f"{target}: {file.name} has no such heading"
  return ""


def _anchors(page: pathlib.Path) -> set[str]:
  """Return the anchors of a page's headings, as code hosts make them."""
  headings = HEADING.findall(FENCE.sub("", page.read_text()))
  words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
  return {word.strip().replace(" ", "-") for word in words}


def main() -> int:
  """Check all pages; 1 if a link is wrong."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--write", action="store_true", help="set the line numbers of code links"
  )
  write = parser.parse_args().write
  wrong = []
  for page in pages():
    if write:
      refresh(page)
    wrong += problems(page)
  for line in wrong:
    print(line, file=sys.stderr)
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
