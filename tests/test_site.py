"""What is wrong with a built site is found; navigation is filled."""

from pathlib import Path

import pytest
from test_docs import load_script

check_site = load_script("check_site")
HEAD = '<head><meta http-equiv="Content-Security-Policy" content="x"></head>'


@pytest.fixture
def site(tmp_path, monkeypatch):
  """A site of two pages that is right."""
  monkeypatch.setattr(check_site, "public_names", lambda: {"a.f": "a.b.f"})
  (tmp_path / "index.html").write_text(
    f'{HEAD}<img src="a.png"><a href="other.html#a.f">x</a>'
    '<a href="https://elsewhere.org">read this</a>'
  )
  (tmp_path / "other.html").write_text(f'{HEAD}<h2 id="a.f">f</h2>')
  (tmp_path / "a.png").write_bytes(b"")
  (tmp_path / "a.css").write_text("a {background: url(a.png)}")
  return tmp_path


def test_a_whole_site_has_no_problems(site):
  assert not check_site.problems(site)


@pytest.mark.parametrize(
  ("name", "content", "problem"),
  [
    ("x.html", "<head></head>", "x.html: may load from other hosts"),
    (
      "x.html",
      f'{HEAD}<script src="https://cdn.org/x.js"></script>',
      "x.html: loads https://cdn.org/x.js",
    ),
    (
      "x.html",
      f'{HEAD}<p style="background: url(//cdn.org/a.png)">',
      "x.html: loads //cdn.org/a.png",
    ),
    ("a.css", "@import 'https://fonts.org/a'", "a.css: loads https://fonts"),
    ("x.html", f'{HEAD}<a href="no.html">', "no.html leads to no file"),
    ("x.html", f'{HEAD}<a href="other.html#no">', "leads to no heading"),
    ("other.html", f'{HEAD}<h2 id="g">', "a.f is not in the reference"),
  ],
)
def test_what_is_wrong_is_found(site, name, content, problem):
  (site / name).write_text(content)
  assert any(problem in line for line in check_site.problems(site))


def test_the_whole_interface_is_public():
  names = check_site.public_names()
  assert names["jaxflow.api.train"] == "jaxflow.api.train"
  home = "jaxflow.losses.mean_flow.mean_flow_loss"
  assert names["jaxflow.losses.mean_flow_loss"] == home


def test_hooks_of_the_site():
  pytest.importorskip("griffe", reason="pip install '.[docs]'")
  pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
  hooks = load_script("site_hooks")
  nav = ["index.md", {"Methods": ["methods/mid_training.md", "methods/mi*.md"]}]
  named = {"index.md", "methods/mid_training.md"}
  pages = sorted(path.name for path in Path("docs/methods").glob("mi*.md"))
  others = [f"methods/{x}" for x in pages if x != "mid_training.md"]
  assert hooks._filled(nav, named) == [
    "index.md",
    {
      "Methods": [
        "methods/mid_training.md",
        *others,
      ]
    },
  ]
  text = "Take\n\n  a = `b`\n    c\n\nwith c.\n\nArgs:\n  c: Real.\n"
  assert hooks.of_docstring(text) == (
    "Take\n\n```text\na = b\n  c\n```\n\nwith c.\n\nArgs:\n  c: Real.\n"
  )
  assert hooks.of_docstring("Take.\n\nExample:\n  >>> 1\n") == (
    "Take.\n\nExamples:\n  >>> 1\n"
  )
