"""A browser for tests, and what they ask of any page in it, as JavaScript."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_browser():
    """Headless Chromium; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"needs Chromium: none of {', '.join(NAMES)} is on the path")
    # Chromium refuses its sandbox to root
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


# controls without a name
BARE = """() => [...document.querySelectorAll('input, select, button, a')].filter(node => {
  const text = [...(node.labels ?? [])].map(label => label.textContent).join('')
    + node.textContent + (node.getAttribute('aria-label') ?? '')
    + [...node.querySelectorAll('img')].map(image => image.alt).join('');
  return !text.trim();
}).map(node => node.outerHTML)"""
# WCAG contrast of every visible text against the first opaque background behind it
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return rgba(color)[3] === 255 ? color : behind(node.parentElement);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest('script, option')) continue;
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [luminance(color), luminance(behind(node))].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data]);
  }
  return found;
}"""
