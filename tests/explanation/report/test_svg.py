"""What makes a drawing fit for a page."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from artifactnet.explanation.report.svg import inline_svg

DRAWING = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" height="8pt" viewBox="0 0 9 8"
 xmlns="http://www.w3.org/2000/svg" version="1.1">
 <metadata><date>today</date></metadata>
 <defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
 <g id="figure_1">
  <defs><path id="m1" d="M 0 0
L 1 1" style="stroke: #000000; stroke-width: 0.8"/></defs>
  <use xlink:href="#m1" clip-path="url(#p1)" style="fill: #3c82c8"/>
  <text style="font: 10px 'DejaVu Sans', sans-serif; text-anchor: end"
   x="1" transform="rotate(-0 1 2)">url(#p1) &lt;b&gt; id="m1"</text>
  <text style="font-size: 7px; font-family: 'A', serif; fill: #000000">#m1</text>
 </g>
 <defs><clipPath id="p1"><rect width="1" height="2"/></clipPath></defs>
</svg>"""


@pytest.fixture
def element():
    return ElementTree.fromstring(inline_svg(DRAWING, "roc", "A <title>"))


def test_no_header_metadata_or_styles():
    found = inline_svg(DRAWING, "roc", "A title")
    assert found.startswith("<svg ")
    for forbidden in ("http", "<?xml", "DOCTYPE", "metadata", "today", "style", "xlink", "pt"):
        assert forbidden not in found.replace("serif", "")


def test_the_root(element):
    assert element.attrib == {
        "viewBox": "0 0 9 8",
        "role": "img",
        "aria-label": "A <title>",
        "fill": "currentColor",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }


def test_ids_have_the_prefix_and_unused_ones_go(element):
    assert sorted(e.attrib["id"] for e in element.iter() if "id" in e.attrib) == [
        "roc-m1",
        "roc-p1",
    ]
    use = element.find(".//use")
    assert use.attrib == {"href": "#roc-m1", "clip-path": "url(#roc-p1)", "fill": "#3c82c8"}


def test_styles_become_attributes_and_black_the_colour_of_text(element):
    path = element.find(".//path")
    assert path.attrib == {
        "id": "roc-m1",
        "d": "M 0 0 L 1 1",
        "stroke": "currentColor",
        "stroke-width": "0.8",
    }


def test_text_stays_as_it_is_in_the_font_of_the_page(element):
    first, second = element.findall(".//text")
    assert first.text == 'url(#p1) <b> id="m1"'
    assert first.attrib["font-size"] == "10px"
    assert first.attrib["text-anchor"] == "end"
    assert second.text == "#m1"
    assert second.attrib == {"font-size": "7px", "fill": "currentColor"}
    assert "<b>" not in inline_svg(DRAWING, "roc", "t")
