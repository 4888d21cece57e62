"""Pages of HTML that need nothing else: no script, and no other file.

A page may link to other files and pages, but shows none of them.

Functions return HTML; their arguments are text and are escaped.
"""

import base64
import datetime
import html
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import jaxflow

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
th, td { padding: 0.2rem 0.7rem; text-align: right; }
th { border-bottom: 1px solid #999; vertical-align: bottom; }
td { border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
details td { white-space: normal; }
.wide { overflow-x: auto; }
details table { overflow-wrap: anywhere; }
@media (max-width: 600px) {
  body { margin: 1rem auto; padding: 0 0.7rem; }
  table { font-size: 12px; }
  th, td { padding: 0.2rem 0.22rem; }
  td:first-child { overflow-wrap: break-word; min-width: 5rem; }
}
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: 13px; }
a { color: #14507a; }
details { margin: 1rem 0; }
summary { cursor: pointer; }
"""


def page(title: str, parts: Iterable[str]) -> str:
  """Return a whole page of parts in HTML."""
  name = html.escape(title)
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{name}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
    f"<h1>{name}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
  )


def made_by() -> str:
  """Return a sentence that says when, and by which version, a page was made."""
  now = datetime.datetime.now(datetime.UTC)
  return f"Made on {now:%Y-%m-%d %H:%M} UTC by jaxflow {jaxflow.__version__}."


def heading(text: str) -> str:
  """Return a heading, to which `contents` links."""
  name = html.escape(_anchor(text))
  return f'<h2 id="{name}">{html.escape(text)}</h2>'


def _anchor(text: str) -> str:
  """Return the name of a heading in addresses."""
  return re.sub(r"\W+", "-", text.lower()).strip("-")


def contents(parts: Iterable[str]) -> str:
  """Return links to the headings among parts in HTML."""
  found = re.findall('^<h2 id="(.*?)">(.*)</h2>$', "\n".join(parts), re.M)
  links = [f'<a href="#{name}">{text}</a>' for name, text in found]
  return f'<nav class="note">{" · ".join(links)}</nav>'


def links(text: str, addresses: Mapping[str, str]) -> str:
  """Return a paragraph in small print with links, by their names."""
  each = ", ".join(
    f'<a href="{html.escape(address)}">{html.escape(name)}</a>'
    for name, address in addresses.items()
  )
  return f'<p class="note">{html.escape(text)} {each}</p>'


def paragraph(text: str) -> str:
  """Return a paragraph."""
  return f"<p>{html.escape(text)}</p>"


def note(text: str) -> str:
  """Return a paragraph in small print."""
  return f'<p class="note">{html.escape(text)}</p>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Return a table, without a head if there are no columns' names."""
  head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
  body = "\n".join(
    "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>"
    for row in rows
  )
  thead = f"<thead><tr>{head}</tr></thead>\n" if head else ""
  inner = f"<table>\n{thead}<tbody>\n{body}\n</tbody>\n</table>"
  # One that is wider than the page is moved within its own frame.
  return f'<div class="wide" tabindex="0">{inner}</div>'


def _cell(text: str) -> str:
  """Return the text of a cell, where lines may break at _ too."""
  return html.escape(text).replace("_", "_<wbr>")


def picture(
  file: pathlib.Path,
  title: str,
  caption: str = "",
  *,
  narrow: pathlib.Path | None = None,
) -> str:
  """Return a PNG, the bytes of which stand in the page.

  The title is for readers who cannot see it. A narrow page shows `narrow`.
  """
  image = f'<img alt="{html.escape(title)}" src="{_address(file)}">'
  if narrow is not None:
    source = f'<source media="(max-width: 600px)" srcset="{_address(narrow)}">'
    image = f"<picture>{source}{image}</picture>"
  under = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
  return f"<figure>{image}{under}</figure>"


def _address(file: pathlib.Path) -> str:
  data = base64.b64encode(file.read_bytes()).decode()
  return f"data:image/png;base64,{data}"


def folded(summary: str, part: str) -> str:
  """Return a part in HTML that is unfolded by a click on its summary."""
  return f"<details><summary>{html.escape(summary)}</summary>{part}</details>"
