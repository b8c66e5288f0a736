"""How Sphinx builds the site: Markdown by MyST, the theme Furo, code by its name in the repository.

``make docs`` builds it into ``build/docs``. Sphinx is imported in :func:`setup` alone, so that tests may look
at this folder where it is not installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent)]

project = "gpunn"
author = "the gpunn developers"
copyright = f"{author}, MIT licence"
version = release = re.search(r'__version__ = "(.*?)"', (FOLDER.parent / "gpunn/_version.py").read_text())[1]

extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["README.md"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

html_theme = "furo"
html_title = f"gpunn {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": [], "navigation_with_keys": True}
highlight_language = "text"
pygments_style = "default"
pygments_dark_style = "github-dark"
smartquotes = False

#: What is copied is what is typed: no prompts, no output.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp"

#: Where the Makefile writes what the pictures of the notes are, ``quick`` or ``full``.
MADE = FOLDER.parent / "build" / "pictures" / ".made"

QUICK = """
```{note}
The text describes the full run. The pictures of this build are of the quick settings, with fewer examples and
epochs; `make pictures docs` makes those of the full run.
```
"""


def told(page: str, are: str) -> str:
    """A page's text, with a note under its title where it shows quick pictures of the notes.

    >>> page = "# Title\\n\\n![It](../build/pictures/it.png)"
    >>> told(page, "full") == page, told("# Without pictures", "quick")
    (True, '# Without pictures')
    >>> told(page, "quick").splitlines()[:3]
    ['# Title', '', '```{note}']
    """
    if are != "quick" or "](../build/pictures/" not in page:
        return page
    title, _, rest = page.partition("\n")
    return f"{title}\n{QUICK}{rest}"


def setup(app: Any) -> dict[str, bool]:
    """Add the directive ``definition``, links to README, notes, charts; take away empty lines after code."""
    from definitions import language, text_of
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Definition(SphinxDirective):
        """The text of a function, a class or a kernel: ``{definition} kernels/updates.cu adam``."""

        required_arguments = 2

        def run(self) -> list[nodes.Node]:
            path, name = self.arguments
            self.env.note_dependency(str(FOLDER.parent / path))
            try:
                text = text_of(path, name)
            except (LookupError, OSError) as error:
                raise self.error(str(error)) from error
            return [nodes.literal_block(text, text, language=language(path))]

    def readme(app: Any, docname: str, source: list[str]) -> None:
        """What is the first page beside the sources is another one here."""
        source[0] = source[0].replace("](../README.md)", "](index.md)")

    def note(app: Any, docname: str, source: list[str]) -> None:
        source[0] = told(source[0], app.config.pictures_are)

    def trimmed(app: Any, doctree: nodes.document) -> None:
        for block in doctree.findall(nodes.literal_block):
            text = block.astext().rstrip()
            block.rawsource, block.children = text, []
            block += nodes.Text(text)
            if text.startswith(">>>"):
                block["language"] = "pycon"

    def charts(app: Any, error: Exception | None) -> None:
        if error is None and app.builder.format == "html":
            from benchmarks import page, results

            made = page.page(results.FOLDER)
            (Path(app.outdir) / "measured.html").write_text(made, encoding="utf-8")

    app.add_directive("definition", Definition)
    app.connect("source-read", readme)
    app.connect("source-read", note)
    app.add_config_value("pictures_are", MADE.read_text().strip() if MADE.is_file() else "", "env")
    app.connect("doctree-read", trimmed)
    app.connect("build-finished", charts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
