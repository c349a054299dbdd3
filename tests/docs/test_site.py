"""The documentation site: built as CI would, complete, and without anything from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser_checks import open_browser

import artifactnet

ROOT = Path(__file__).parents[2]
ASSETS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Html(HTMLParser):
    """Links, assets and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.anchors |= {values["id"]} if "id" in values else set()
        self.anchors |= {values["name"]} if tag == "a" and "name" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link":
            self.assets.append(values["href"])
        elif ASSETS.get(tag) in values:
            self.assets.append(values[ASSETS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, if there was not one warning."""
    pytest.importorskip("material", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Html(path) for path in site.rglob("*.html")}


def target(page: str, link: str) -> tuple[str, str]:
    """Path below the site, and anchor, of a relative link."""
    path, _, anchor = link.partition("#")
    joined = os.path.normpath(os.path.join(os.path.dirname(page), unquote(path))) if path else page
    return joined, unquote(anchor)


def local(links: list[str]) -> list[str]:
    return [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]


def test_every_page_is_reached_from_the_start(pages):
    written = {
        p.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        for p in (ROOT / "docs").rglob("*")
        if p.suffix in (".md", ".ipynb")
    }
    cards = {f"models/{p.stem}.html" for p in (ROOT / "artifactnet" / "weights").glob("*.md")}
    assert len(cards) >= 4
    reached = {target("index.html", link)[0] for link in local(pages["index.html"].links)}
    # a closed section of the navigation shows its first page
    reached |= {t for page in reached & set(pages)
                for t, _ in (target(page, link) for link in local(pages[page].links))}  # fmt: skip
    assert (written | cards | {"changelog.html", "contributing.html"}) - reached == set()


def test_links_and_anchors_lead_somewhere(site, pages):
    broken = []
    for page, html in pages.items():
        if page == "404.html":  # written for the root of a server
            continue
        for link in local(html.links + html.assets):
            path, anchor = target(page, link)
            if not (site / path).exists() or (
                anchor and path in pages and anchor not in pages[path].anchors | {"__top"}
            ):
                broken.append(f"{page}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site, pages):
    away = [(page, asset) for page, html in pages.items() for asset in html.assets
            if asset.startswith(("http:", "https:", "//"))]  # fmt: skip
    assert away == []
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert "url(http" not in text
        assert "@import" not in text, path


def test_the_whole_public_interface_is_in_the_reference(pages):
    anchors = {anchor for page, html in pages.items() if page.startswith("api/")
               for anchor in html.anchors}  # fmt: skip
    public = set(artifactnet.__all__) - {"__version__"}
    assert {name for name in public if f"artifactnet.{name}" not in anchors} == set()


def test_pictures_are_small():
    sizes = {p.name: p.stat().st_size for p in (ROOT / "docs" / "images").iterdir()}
    assert {name: size for name, size in sizes.items() if size > 300_000} == {}


def test_the_site_in_a_browser(site):
    """Search works, no request leaves, and no page is wider than a phone."""
    handler = partial(QuietHandler, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    try:
        with open_browser() as browser:
            page = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            for name in ("index", "concepts", "results", "api/models", "faq",
                         "models/artifactnet-small", "notebooks/1_detect_and_explain"):  # fmt: skip
                page.goto(f"{url}{name}.html")
                assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
                broken = page.evaluate(
                    "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
                )
                assert broken == 0, name
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto(f"{url}index.html")
            page.locator("input[name=query]").fill("calibrate")
            page.locator(".md-search-result__item").first.wait_for(timeout=20_000)
            assert [request for request in asked if not request.startswith(url)] == []
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""
