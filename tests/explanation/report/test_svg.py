"""What makes a drawing fit for a page."""

from xml.etree import ElementTree

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


def test_a_drawing_becomes_an_element_for_a_page():
    found = inline_svg(DRAWING, "roc", "A <title>")
    for forbidden in ("http", "<?xml", "DOCTYPE", "metadata", "today", "style", "xlink", "<b>"):
        assert forbidden not in found
    root = ElementTree.fromstring(found)
    assert root.attrib.pop("aria-label") == "A <title>"
    names = {"viewBox", "role", "fill", "stroke-linejoin", "stroke-linecap"}
    assert (set(root.attrib), root.attrib["viewBox"]) == (names, "0 0 9 8")
    # ids have the prefix, and unused ones are gone
    assert sorted(e.attrib["id"] for e in root.iter() if "id" in e.attrib) == ["roc-m1", "roc-p1"]
    use = root.find(".//use")
    assert use.attrib == {"href": "#roc-m1", "clip-path": "url(#roc-p1)", "fill": "#3c82c8"}
    # styles are attributes, and black is the color of the text
    path = {"id": "roc-m1", "d": "M 0 0 L 1 1", "stroke": "currentColor", "stroke-width": "0.8"}
    assert root.find(".//path").attrib == path
    # text stays as it is, in the font of the page
    first, second = root.findall(".//text")
    assert first.text == 'url(#p1) <b> id="m1"'
    assert (first.attrib["font-size"], first.attrib["text-anchor"]) == ("10px", "end")
    assert second.text == "#m1"
    assert second.attrib == {"font-size": "7px", "fill": "currentColor"}
