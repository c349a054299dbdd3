"""A drawing of matplotlib as an SVG element for light and dark pages."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_BLACK = {"#000000", "#000", "black"}
_REFERENCE = re.compile(r"^(?:url\()?#([^)]+)\)?$")

# these have no effect as attributes: the page's own font is used
_LEFT_OUT = {"font-family", "white-space"}


def inline_svg(drawing: str, prefix: str, title: str) -> str:
    """An SVG file as an element for a page.

    Text takes the page's font, and black the colour of the page's text, so that a dark page stays
    legible. Inline styles (which a strict content security policy forbids) become attributes;
    metadata and style sheets (which would apply to the whole page) are removed.

    Args:
        drawing: SVG of matplotlib, with text as text.
        prefix: of every id, so that two drawings of one page do not clash.
        title: the accessible name.

    Returns:
        One ``<svg>`` element without size of its own: it fills the width it is given.

    Raises:
        xml.etree.ElementTree.ParseError: ``drawing`` is not XML.
    """
    root = ElementTree.fromstring(drawing)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    values = (value for element in root.iter() for value in element.attrib.values())
    referenced = {match[1] for match in map(_REFERENCE.match, values) if match}
    for element in root.iter():
        _simplify(element, prefix, referenced)
    attributes = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    root.attrib.clear()
    root.attrib.update(attributes, fill="currentColor")
    root.attrib.update({"stroke-linejoin": "round", "stroke-linecap": "butt"})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]


def _simplify(element: ElementTree.Element, prefix: str, referenced: set[str]) -> None:
    """Drop namespaces, unused ids, blanks and styles of one element, in place."""
    attributes = {_local(name): value for name, value in element.attrib.items()}
    attributes |= _declarations(attributes.pop("style", ""))
    if attributes.get("id") in referenced:
        attributes["id"] = f"{prefix}-{attributes['id']}"
    else:
        attributes.pop("id", None)
    for name, value in attributes.items():
        match = _REFERENCE.match(value)
        if match and match[1] in referenced:
            attributes[name] = value.replace(f"#{match[1]}", f"#{prefix}-{match[1]}")
        elif name in ("fill", "stroke") and value.lower() in _BLACK:
            attributes[name] = "currentColor"
        elif name == "d":
            attributes[name] = " ".join(value.split())
    element.tag = _local(element.tag)
    element.attrib.clear()
    element.attrib.update(attributes)
    if element.tag != "text":
        element.text = None
    element.tail = None


def _declarations(style: str) -> dict[str, str]:
    """Declarations of an inline style as attributes."""
    attributes: dict[str, str] = {}
    for declaration in filter(str.strip, style.split(";")):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":  # older versions write one declaration: "bold 10px 'DejaVu Sans'"
            size = re.search(r"[\d.]+px", value)
            if size:
                attributes["font-size"] = size[0]
        elif name not in _LEFT_OUT:
            attributes[name] = value
    return attributes
