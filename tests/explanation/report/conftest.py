"""A browser that opens pages from disk, for tests of pages."""

from pathlib import Path

import pytest
from browser_checks import open_browser


@pytest.fixture(scope="module")
def browser():
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def visit(browser):
    """Opens reports; whatever a page complains about or asks for fails the test."""
    contexts, problems = [], []

    def opener(path, fragment="", width=1100, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        address = Path(path).as_uri()

        def asked(request):
            if request.url.partition("#")[0] != address and not request.url.startswith("data:"):
                problems.append(f"request: {request.url}")

        page.on("request", asked)
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.goto(address + fragment)
        page.wait_for_load_state("load")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert problems == []
