"""Self-contained HTML files that open from disk without requests: what all pages share."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifactnet.files import atomic_path
from artifactnet.names import visible

_PACKAGE = __name__.rpartition(".")[0]  # templates, styles and scripts lie beside this file


def write_html(
    path: str | Path,
    template: str,
    values: Mapping[str, Any],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    staging: Path | None = None,
) -> None:
    """Write a page made of a template that extends ``base.html``, atomically.

    Texts are escaped. The page's security policy allows no request, and of scripts and styles only
    its own, by their hashes.

    Args:
        path: the HTML file to write.
        template: file in this package.
        values: for the template; ``head`` holds ``title``, `made`, ``warnings`` and ``notices``.
        styles: files in this package, behind those of every page.
        scripts: likewise.
        staging: folder for the temporary file, see `artifactnet.files.atomic_path`.

    Raises:
        OSError: the file cannot be written; an older file at ``path`` is untouched.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["visible"] = visible  # for macros, too
    css = "".join(map(_resource, ("report.css", *styles)))
    script = "".join(map(_resource, ("theme.js", *scripts)))
    page = environment.get_template(template)
    with (
        atomic_path(path, staging) as temporary,
        # a text that did not pass `visible` may hold halves of characters
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as handle,
    ):
        handle.writelines(
            page.generate(
                {**values, "css": css, "script": script, "policy": content_policy(css, script)}
            )
        )


def made() -> dict[str, str]:
    """When a page is made, and by which version: ``created`` and ``version``."""
    try:
        package = version("artifactnet")
    except PackageNotFoundError:  # a checkout that was never installed
        package = "of unknown version"
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"created": now.strftime("%Y-%m-%d %H:%M UTC"), "version": package}


def _resource(name: str) -> str:
    return resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def content_policy(css: str, script: str) -> str:
    """Content security policy: nothing is fetched, and no other script or style has an effect."""
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(script)}; style-src {_hash(css)}"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
