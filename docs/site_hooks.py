"""Makes the pages of the repository pages of the site.

The README is the first page. Links that lead out of docs/ lead to the
repository instead. `FOLDER/*.md` in the navigation stands for the pages that it
does not name. Pages of the reference end with the derivations that modules
begin with. Docstrings write "Example:" above doctests, where griffe looks
for "Examples:", and indent formulas and tables by two spaces, where Markdown
asks for four.
"""

import pathlib
import posixpath
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
POLICY = (
  '<meta http-equiv="Content-Security-Policy" content="default-src \'self\' '
  "'unsafe-inline' data: blob:\">"
)
# A fenced block, or the target of a link.
LINK = re.compile(r"^```.*?^```$|(?<=\]\()(?!\w+:|#)[^)\s]+", re.M | re.S)


# A section of a docstring, and an indented paragraph before all sections.
SECTION = re.compile(r"^[A-Z]\w+:$", re.M)
INDENTED = re.compile(r"(?<=\n\n)(?:  .*(?:\n|$))+")

# The first equation of the docstring of a module.
NUMBERED = re.compile(r'\A"""[^"]*?\(1\)$', re.M)


class Docstrings(griffe.Extension):
  """Writes docstrings as griffe and Markdown know them."""

  def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
    """Change the docstring of an object."""
    if obj.docstring:
      obj.docstring.value = of_docstring(obj.docstring.value)


def of_docstring(text: str) -> str:
  """Return a docstring as griffe and Markdown know it."""
  section = SECTION.search(text)
  start = section.start() if section else len(text)
  head = INDENTED.sub(lambda match: _code(match[0]), text[:start])
  return head + re.sub(r"^Example:$", "Examples:", text[start:], flags=re.M)


def _code(paragraph: str) -> str:
  """Return an indented paragraph as a block of code."""
  text = textwrap.dedent(paragraph).replace("`", "").strip("\n")
  return f"```text\n{text}\n```\n"


def on_config(config: Any) -> Any:
  """Fill `FOLDER/*.md` of the navigation with pages that it does not name."""
  config.nav = _filled(config.nav, {*_places(config.nav)})
  return config


def _places(nav: Any) -> Iterator[str]:
  """Yield the pages that a part of the navigation names."""
  if isinstance(nav, str):
    yield nav
  else:
    for part in nav.values() if isinstance(nav, dict) else nav:
      yield from _places(part)


def _filled(nav: Any, named: set[str]) -> Any:
  """Return a part of the navigation without patterns."""
  if isinstance(nav, dict):
    return {title: _filled(part, named) for title, part in nav.items()}
  if isinstance(nav, str):
    return nav
  filled = []
  for part in nav:
    if isinstance(part, str) and "*" in part:
      pages = (str(x.relative_to(DOCS)) for x in sorted(DOCS.glob(part)))
      filled += [page for page in pages if page not in named]
    else:
      filled.append(_filled(part, named))
  return filled


def on_files(files: Any, config: Any) -> Any:
  """Add the README as the first page."""
  text = (ROOT / "README.md").read_text()
  page = File.generated(config, "index.md", content=text)
  files.append(page)
  return files


def on_page_markdown(text: str, page: Any, config: Any, files: Any) -> str:
  """Return a page whose links lead to pages, or to the repository."""
  place = page.file.src_uri
  if place.endswith(".ipynb"):
    return text
  if place.startswith("reference/"):
    text += _equations(ROOT / "jaxflow" / pathlib.Path(place).stem)
  written = "README.md" if place == "index.md" else f"docs/{place}"

  def target(match):
    link = match[0]
    return link if link.startswith("```") else resolved(link, written, place)

  def resolved(link, written, place):
    path, mark, anchor = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(written), path))
    there = ROOT / path
    if path == "README.md":
      path = "docs/index.md"
    elif there.is_dir() and (there / "README.md").is_file():
      path += "/README.md"
    if not path.startswith("docs/") and there.suffix == ".png":
      copy = f"images/{path.replace('/', '_')}"
      if files.get_file_from_path(copy) is None:
        files.append(File.generated(config, copy, abs_src_path=str(there)))
      path = f"docs/{copy}"
    if not path.startswith("docs/") or path.endswith(".py"):
      kind = "tree" if there.is_dir() else "blob"
      return f"{config.extra['repository']}{kind}/main/{path}{mark}{anchor}"
    start = posixpath.dirname(f"docs/{place}")
    return posixpath.relpath(path, start) + mark + anchor

  return LINK.sub(target, text)


def _equations(package: pathlib.Path) -> str:
  """Return the end of a page: what modules with numbered equations derive."""
  found = ""
  for file in sorted(package.glob("*.py")):
    if NUMBERED.search(file.read_text()):
      found += f"\n::: jaxflow.{package.name}.{file.stem}\n"
      found += "    options: {members: false, heading_level: 3}\n"
  return f"\n## Equations\n{found}" if found else ""


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
  """Lead links of notebooks to pages, and leave their diagram script out.

  mkdocs-jupyter keeps links as they are written, and its pages hold a script
  that would fetch mermaid from another host.
  """
  if not page.file.src_uri.endswith(".ipynb"):
    return html
  html = re.sub(
    r"<script[^>]*>(?:(?!</script>).)*?mermaid.*?</script>",
    "",
    html,
    flags=re.S,
  )
  html = re.sub(r'(href="[^":]*?)(?:README)\.md([#"])', r"\1index.html\2", html)
  return re.sub(r'(href="[^":]*?)\.md([#"])', r"\1.html\2", html)


def on_post_page(output: str, page: Any, config: Any) -> str:
  """Forbid browsers to load anything from another host."""
  return output.replace("<head>", f"<head>{POLICY}", 1)


def on_post_template(output: str, template_name: str, config: Any) -> str:
  """Bind the page of errors as all others."""
  return output.replace("<head>", f"<head>{POLICY}", 1)
