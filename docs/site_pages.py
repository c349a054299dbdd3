"""Pages of the site that are no Markdown files of this folder: model cards, notebooks, changelog.

A hook of mkdocs (``hooks`` in ``mkdocs.yml``). Each of these files has one copy in the repository;
links to it work there, and are turned into links between pages here.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# file of the repository -> page of the site
PAGES = {
    **{
        path.relative_to(ROOT).as_posix(): f"models/{path.name}"
        for path in sorted((ROOT / "artifactnet" / "weights").glob("*.md"))
    },
    **{path.relative_to(ROOT).as_posix(): f"notebooks/{path.stem}.md" for path in NOTEBOOKS},
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
ORIGINS = {page: origin for origin, page in PAGES.items()}
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")  # no anchor, no scheme


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for origin, page in PAGES.items():
        if origin.endswith(".md"):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / origin)))
    for path in NOTEBOOKS:
        text, pictures = notebook_to_markdown(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository become links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(ORIGINS.get(here, f"docs/{here}"))

    def on_the_site(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[0]))
        goal = PAGES.get(target, target.removeprefix("docs/"))
        if goal == target:  # on no page: mkdocs says so
            return match[0]
        return posixpath.relpath(goal, posixpath.dirname(here) or ".")

    return LINK.sub(on_the_site, markdown)


def notebook_to_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown with its saved outputs, and its pictures by their file names."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                raise PluginError(f"{path}: a cell failed: {output['ename']}")
            data: dict[str, Any] = output.get("data", {"text/plain": output.get("text", "")})
            kinds = [kind for kind in ("image/png", "image/jpeg") if kind in data]
            if kinds:
                name = f"{path.stem}_{len(pictures)}.{kinds[0].removeprefix('image/')}"
                pictures[name] = base64.b64decode("".join(data[kinds[0]]))
                parts.append(f"![Output of the cell above]({name})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    title, *rest = parts
    link = f"[Download this notebook]({path.name}){{ download }}"
    # the raw file, not the page that PAGES makes of it
    return "\n\n".join([title, link.replace(path.name, f"./{path.name}"), *rest]), pictures
