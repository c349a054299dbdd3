"""Written report pages, read as a browser reads them."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import report_samples as samples

from artifactnet.explanation.report.page import write_page


class Parsed(HTMLParser):
    """Elements, texts and the contents of scripts and styles, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.raw = [], [], []
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs)) if tag in ("script", "style") else None
        if self._inside:
            self.raw.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside:
            self.raw[-1][2] += data
        else:
            self.texts.append(data)

    def json(self, name):
        (found,) = [text for _, attributes, text in self.raw if attributes.get("id") == name]
        return json.loads(found)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def write(tmp_path, entries, **changes):
    path = tmp_path / "report.html"
    write_page(path, samples.head(entries, **changes), entries)
    return Parsed(path.read_text(encoding="utf-8")), path
