"""Check the built site: it is whole, and fetches nothing from other hosts.

  python docs/check_site.py [FOLDER]    # 1 if something is wrong

Links to other hosts are for readers to follow. What a browser loads by itself,
scripts, styles, fonts, pictures and frames, must be in the folder; links within
it must lead to a file; and the reference must have every public name.
"""

import html.parser
import importlib
import inspect
import pathlib
import re
import sys
import urllib.parse

import jaxflow

ROOT = pathlib.Path(__file__).parents[1]
STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
# Links that a browser does not follow by itself.
READ = {"canonical", "next", "prev", "alternate", "author", "license"}
MODULES = {
  *("data", "figures", "flow_maps", "guidance", "losses", "metrics", "models"),
  *("paths", "predictions", "sampling", "solvers", "times", "weights"),
}


class Page(html.parser.HTMLParser):
  """Collects what a page loads, where it leads, and its anchors."""

  def __init__(self, text: str):
    super().__init__()
    self.loaded: list[str] = []
    self.links: list[str] = []
    self.anchors: set[str] = set()
    self.feed(text)
    self.bound = "Content-Security-Policy" in text[:2000]

  def handle_starttag(self, tag, attrs):
    """Note the addresses of an element."""
    given = {name: value or "" for name, value in attrs}
    self.anchors |= {given[x] for x in ("id", "name") if x in given}
    if tag == "link" and not READ & {*given.get("rel", "").split()}:
      self.loaded.append(given.get("href", ""))
    elif tag == "a" and "href" in given:
      self.links.append(given["href"])
    elif tag != "a":
      self.loaded += [given[x] for x in ("src", "poster", "data") if x in given]
      sets = given.get("srcset", "").split(",")
      self.loaded += [x.split()[0] for x in sets if x.strip()]
    self.loaded += _of_style(given.get("style", ""))


def problems(site: pathlib.Path) -> list[str]:
  """Return what is wrong with a built site, one line each."""
  pages = {
    path: Page(path.read_text(encoding="utf-8"))
    for path in sorted(site.rglob("*.html"))
  }
  if not pages:
    return [f"{site} has no pages: run make docs"]
  found = []
  for path, page in pages.items():
    if not page.bound:
      found.append(f"{path.relative_to(site)}: may load from other hosts")
    # The page of errors is shown at any address: it has absolute links.
    if path.name != "404.html":
      for link in [*page.loaded, *page.links]:
        if problem := _problem(link, path, pages):
          found.append(f"{path.relative_to(site)}: {problem}")
    foreign = [x for x in page.loaded if _host(x)]
    found += [f"{path.relative_to(site)}: loads {x}" for x in foreign]
  for path in sorted(site.rglob("*.css")):
    foreign = [x for x in _of_style(path.read_text()) if _host(x)]
    found += [f"{path.relative_to(site)}: loads {x}" for x in foreign]
  described = set().union(*(page.anchors for page in pages.values()))
  for name, home in public_names().items():
    if not {name, home} & described:
      found.append(f"{name} is not in the reference: add ::: {home} to it")
  return found


def public_names() -> dict[str, str]:
  """Return where each public function and class is defined, by its name."""
  homes = {}
  for place in ("api", *sorted(MODULES)):
    module = importlib.import_module(f"jaxflow.{place}")
    for name in module.__all__:
      value = getattr(module, name)
      if inspect.isfunction(value) or inspect.isclass(value):
        home = f"{value.__module__}.{value.__qualname__}"
        homes[f"jaxflow.{place}.{name}"] = home
  return homes


def _of_style(text: str) -> list[str]:
  return [one or two for one, two in STYLE.findall(text)]


def _host(link: str) -> str:
  return urllib.parse.urlsplit(link).netloc


def _problem(link: str, path: pathlib.Path, pages: dict) -> str:
  """Return why a link within the site is wrong, or nothing."""
  parts = urllib.parse.urlsplit(link)
  if parts.scheme or parts.netloc:
    return ""
  there = path
  if parts.path:
    there = (path.parent / urllib.parse.unquote(parts.path)).resolve()
  if there.is_dir():
    there /= "index.html"
  if not there.exists():
    return f"{link} leads to no file"
  anchor = urllib.parse.unquote(parts.fragment)
  if anchor and there in pages and anchor not in pages[there].anchors:
    return f"{link} leads to no heading"
  return ""


def main() -> int:
  """Check a site; 1 if something is wrong."""
  site = pathlib.Path(*sys.argv[1:2] or [ROOT / "build/site"]).resolve()
  assert {*jaxflow.__all__} >= MODULES - {"data"}
  wrong = problems(site)
  for line in wrong:
    print(line, file=sys.stderr)
  return 1 if wrong else 0


if __name__ == "__main__":
  sys.exit(main())
