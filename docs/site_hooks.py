"""Makes the pages of the repository pages of the site.

The README is the first page. Links that lead out of docs/ lead to the
repository instead. Docstrings write "Example:" above doctests, where griffe
looks for "Examples:".
"""

import pathlib
import posixpath
import re
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
MERMAID = re.compile(
  r"(?s)<script[^>]*>(?:(?!</script>).)*?mermaid.*?</script>"
)
POLICY = (
  '<meta http-equiv="Content-Security-Policy" content="default-src \'self\' '
  "'unsafe-inline' data: blob:\">"
)
# A fenced block, or the target of a link.
LINK = re.compile(r"^```.*?^```$|(?<=\]\()(?!\w+:|#)[^)\s]+", re.M | re.S)


class Examples(griffe.Extension):
  """Renames the section of doctests as griffe knows it."""

  def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
    """Change the docstring of an object."""
    if obj.docstring:
      text = obj.docstring.value
      obj.docstring.value = re.sub(
        r"^( *)Example:$", r"\1Examples:", text, flags=re.M
      )


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
