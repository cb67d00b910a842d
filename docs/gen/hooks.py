"""Hooks of mkdocs: pages generated from the code, and pages and files of the repository outside docs/."""

import posixpath
import re
from pathlib import Path
from typing import Any

from command_reference import command_reference
from latex2mathml.converter import convert
from mkdocs.structure.files import File
from name_reference import name_reference
from recipe_reference import recipe_reference

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_GENERATED = {
    "reference/commands.md": lambda: command_reference(ROOT / "scripts"),
    "reference/recipes.md": recipe_reference,
    "reference/python.md": name_reference,
}


def on_config(config: Any) -> None:
    """Show fenced blocks of `math`, as GitHub does, without a script: as MathML."""
    fence = {"name": "math", "class": "math", "format": lambda source, *_, **__: convert(source, display="block")}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}


def on_files(files: Any, config: Any) -> None:
    """Put the generated pages in their place, and add whatever pages of docs/ link to elsewhere in the repository."""
    for uri, make in _GENERATED.items():
        files.remove(files.src_uris[uri])  # the page of a checkout
        files.append(File.generated(config, uri, content=make()))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for link, _ in _LINK.findall(page.content_string):
            uri = _site_uri(page.src_uri, link)
            path = ROOT / uri
            if uri not in files.src_uris and not uri.startswith("..") and path.is_file():
                files.append(File.generated(config, uri, abs_src_path=str(path)))
                waiting += [files.src_uris[uri]] * uri.endswith(".md")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links within the repository into links within the site."""

    def within_site(match: re.Match[str]) -> str:
        uri = _site_uri(page.file.src_uri, match[1])
        if uri not in files.src_uris:
            return match[0]
        return f"]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{match[2] or ''})"

    return _LINK.sub(within_site, markdown)


def _site_uri(page: str, link: str) -> str:
    """The target of a page's link: docs/ is the root of the site, and files outside docs/ keep their paths."""
    in_docs = (ROOT / "docs" / page).exists()
    place = posixpath.join("docs" if in_docs else "", posixpath.dirname(page), link)
    return posixpath.normpath(place).removeprefix("docs/")
