"""Pages of HTML that need nothing else: no script, no link, no other file.

Functions return HTML; their arguments are text and are escaped.
"""

import base64
import datetime
import html
import pathlib
from collections.abc import Iterable, Sequence

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
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
details table { overflow-wrap: anywhere; }
@media (max-width: 600px) {
  body { margin: 1rem auto; padding: 0 0.7rem; }
  table { font-size: 12px; }
  th, td { padding: 0.2rem 0.35rem; }
}
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: 13px; }
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
  """Return a heading."""
  return f"<h2>{html.escape(text)}</h2>"


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
    "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
    for row in rows
  )
  thead = f"<thead><tr>{head}</tr></thead>\n" if head else ""
  inner = f"<table>\n{thead}<tbody>\n{body}\n</tbody>\n</table>"
  # One that is wider than the page is moved within its own frame.
  return f'<div class="wide" tabindex="0">{inner}</div>'


def picture(file: pathlib.Path, title: str, caption: str = "") -> str:
  """Return a PNG, the bytes of which stand in the page.

  The title is for readers who cannot see it.
  """
  data = base64.b64encode(file.read_bytes()).decode()
  under = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
  return (
    f'<figure><img alt="{html.escape(title)}" '
    f'src="data:image/png;base64,{data}">{under}</figure>'
  )


def folded(summary: str, part: str) -> str:
  """Return a part in HTML that is unfolded by a click on its summary."""
  return f"<details><summary>{html.escape(summary)}</summary>{part}</details>"
