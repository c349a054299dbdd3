"""The form of an answer (FakeXplainer, Sec. 3.3 and Fig. 2; our reading): writing and reading it.

::

    <think>
    {"bbox_2d": [x1, y1, x2, y2], "label": "caption"}
    <tag>wrong texture, other anomalies</tag>
    </think>
    <verdict>generated</verdict>

A line for each region, in the coordinates of the model; a real image has none, and the tag `none`.
`write` makes this form, `is_strict` asks for exactly it (the format reward), and `read` takes what
it can from any text, also of models that were never taught it, in time linear in its length.

Ablations (Table 4) drop a part of the answers: boxes or captions from the lines, the tag element,
or (``label``) all but the verdict. Checkpoints that write boxes with tokens of their own keep them:
forms ``qwen`` and ``internvl``. Lines of the form ``category`` have one of X-AIGD's short names in
place of the caption (X-AIGD, App. C.3; our reading):
``{"bbox_2d": [x1, y1, x2, y2], "category": "symbols"}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from artifactnet.data.regions import MARKERS
from artifactnet.taxonomy import CATEGORIES, TAG_ALIASES, TAGS
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.boxes import INTERNVL, QWEN, read_boxes, text_of
from artifactnet.vlm.coordinates import Size, WholeBox, to_image, to_model

Drop = Literal["none", "bbox", "caption", "tags", "label"]
Form = Literal["json", "qwen", "internvl", "category"]

MAX_REGIONS = 32
MAX_CAPTION = 300  # characters
NO_TAG = "none"
VERDICTS = {"real": False, "generated": True}
_CONTROL_WORDS = (*MARKERS, *QWEN, *INTERNVL)  # which no caption may hold
_BOX_WORDS: dict[Form, tuple[str, ...]] = {"qwen": QWEN, "internvl": INTERNVL}
_CAPTION_KEYS: dict[Form, str] = {"json": "label", "category": "category"}  # of the JSON forms
_CATEGORIES = {item.short for item in CATEGORIES}

_FOUR_INTS = [int] * 4
# verdict, (box in the model's coordinates, caption) of each line, and tags
_Strict = tuple[bool, list[tuple[Any, Any]], tuple[str, ...]]
_CORNERS = ("x1", "y1", "x2", "y2")

# the strict form, whose markers stand once in a text: so each of these patterns takes linear time
_VERDICT = r"\s*<verdict>(?P<word>.*)</verdict>\s*"
_LAYOUT = re.compile(
    rf"\s*<think>(?P<lines>.*)<tag>(?P<tags>.*)</tag>\s*</think>{_VERDICT}", re.DOTALL
)
_LAYOUTS: dict[Drop, re.Pattern[str]] = {
    "tags": re.compile(rf"\s*<think>(?P<lines>.*)</think>{_VERDICT}", re.DOTALL),
    "label": re.compile(_VERDICT, re.DOTALL),
}


def _native_line(form: Form, drop: Drop) -> re.Pattern[str]:
    open_ref, close_ref, open_box, close_box = map(re.escape, _BOX_WORDS[form])
    named = rf"{open_ref}(?P<caption>.{{1,{MAX_CAPTION}}}?){close_ref}"
    x1, y1, x2, y2 = (rf"(?P<{name}>0|[1-9][0-9]{{0,6}})" for name in _CORNERS)
    numbers = (
        rf"\({x1},{y1}\),\({x2},{y2}\)" if form == "qwen" else rf"\[\[{x1}, ?{y1}, ?{x2}, ?{y2}\]\]"
    )
    boxed = f"{open_box}{numbers}{close_box}"
    return re.compile({"bbox": named, "caption": boxed}.get(drop, named + boxed))


_NATIVE_LINES = {
    (form, drop): _native_line(form, drop) for form in _BOX_WORDS for drop in get_args(Drop)
}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


# objects become tuples of pairs, which show doubled keys and cannot be taken for lists
_STRICT_JSON = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=_refuse)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `read` found in a text.

    Attributes:
        is_fake: the verdict; None without one.
        regions: in pixels of the image, clipped, in the order of the text; the caption is empty
            where none was written.
        tags: of `artifactnet.taxonomy.TAGS`, in the order of the text.
        captions: those without a box, as models write that were taught without boxes.
        dropped: how many boxes could not be used: not four finite numbers, empty within the image,
            or in an object that is no JSON or was cut off.
        unknown_tags: how many tags are none of the six.
    """

    is_fake: bool | None
    regions: tuple[Region, ...] = ()
    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    dropped: int = 0
    unknown_tags: int = 0


def write(
    is_fake: bool,
    regions: Sequence[Region],
    tags: Sequence[str],
    image_size: Size,
    input_size: Size,
    drop: Drop = "none",
    form: Form = "json",
) -> str:
    """The answer about an image, as it is taught.

    It passes `is_strict`, except for a generated image without region and tag: no strict answer
    describes that one.

    Args:
        is_fake: whether the image was generated.
        regions: in pixels of the image; written in this order.
        tags: of `artifactnet.taxonomy.TAGS`.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
        drop: what is left out.
        form: how a region is written.

    Raises:
        ArtifactNetError: a real image has regions or tags; there are more than 32 regions; a
            caption is blank, longer than 300 characters, or holds a marker or a control word of
            the form; a tag is unknown or doubled.
    """
    if not is_fake and (regions or tags):
        raise ArtifactNetError("a real image has neither regions nor tags")
    verdict = f"<verdict>{'generated' if is_fake else 'real'}</verdict>"
    if drop == "label":
        return verdict
    if len(regions) > MAX_REGIONS:
        raise ArtifactNetError(
            f"{len(regions)} regions, an answer has at most {MAX_REGIONS}: merge or remove some"
        )
    lines = ["<think>"]
    for number, region in enumerate(regions):
        if drop != "caption":
            _check_caption(region.caption, f"regions[{number}]", form)
        box = to_model(region.bbox, image_size, input_size)
        lines.append(_line(box, region.caption, drop, form))
    if drop != "tags":
        if len(set(tags)) < len(tags) or not set(tags) <= set(TAGS):
            raise ArtifactNetError(
                f"tags must be distinct names of {', '.join(TAGS)}; got {', '.join(tags)!r:.200}"
            )
        lines.append(f"<tag>{', '.join(tags) or NO_TAG}</tag>")
    return "\n".join([*lines, "</think>", verdict])


def is_strict(text: str, input_size: Size, drop: Drop = "none", form: Form = "json") -> bool:
    """Whether a text has exactly the form that is taught.

    Each marker stands once and in order, with white space alone outside the elements; each line
    has one region with just its keys, whole numbers inside the model's coordinates and a caption
    of 1 to 300 characters without markers and control words; at most 32 of them; distinct tags or
    ``none``; ``real`` or ``generated``; ``real`` with neither region nor tag, ``generated`` with
    at least one (without tags in the form, that one may be a tag, so nothing is asked for).

    Args:
        text: of the answer.
        input_size: (width, height) of the model's coordinates.
        drop: what answers are taught without.
        form: how a region is written.
    """
    return _strict(text, input_size, drop, form) is not None


def read_strict(
    text: str, image_size: Size, input_size: Size, drop: Drop = "none", form: Form = "json"
) -> Answer | None:
    """What `read` finds in a strict answer, in less time; None if `is_strict` refuses the text.

    Args:
        text: of the answer.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
        drop: what answers are taught without.
        form: how a region is written.
    """
    found = _strict(text, input_size, drop, form)
    if found is None:
        return None
    is_fake, lines, tags = found
    if drop == "bbox":
        return Answer(is_fake, (), tags, tuple(caption for _, caption in lines))
    regions = [Region(to_image(box, image_size, input_size), caption) for box, caption in lines]
    return Answer(is_fake, tuple(regions), tags)


def read(text: str, image_size: Size, input_size: Size) -> Answer:
    """Whatever an answer says; never raises.

    The verdict is the one word inside all ``<verdict>`` elements, in any case of letters; none if
    there are two. Regions are JSON objects, alone or in lists (``bbox_2d`` or ``bbox``, ``label``
    or ``caption``), and boxes in the tokens of Qwen or InternVL, anywhere before the verdict.
    Tags may have the paper's other names.

    Args:
        text: of any model.
        image_size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates.
    """
    head = text.partition("<verdict>")[0]
    found = read_boxes(head, image_size, input_size)
    regions = tuple(Region(one.box, one.text("label", "caption")) for one in found.boxes)
    loose = (text_of(keys, "label", "caption") for keys in found.others)
    captions = tuple(caption for caption in loose if caption)
    tags, unknown = _tags(head)
    return Answer(read_verdict(text), regions, tags, captions, found.dropped, unknown)


def read_verdict(text: str) -> bool | None:
    """Whether an answer calls its image generated: the one word inside all ``<verdict>`` elements.

    None without such a word, and if there are two.
    """
    words = {word.strip().lower() for word in _contents(text, "<verdict>", "</verdict>")}
    return VERDICTS.get(words.pop()) if len(words) == 1 else None


def reference_text(
    regions: Sequence[Region], tags: Sequence[str], captions: Sequence[str] = ()
) -> str:
    """Text of an answer or an annotation for BLEU and ROUGE.

    Captions by (y1, x1, y2, x2) of their boxes, then those without a box, then the tags; sentences
    are joined by ``". "``, tags by ``", "``. Removing tags lowers the paper's BLEU (Table 4), so
    they belong to it.
    """

    def place(region: Region) -> tuple[float, ...]:
        x1, y1, x2, y2 = region.bbox
        return y1, x1, y2, x2

    parts = [region.caption for region in sorted(regions, key=place)]
    return ". ".join(part for part in (*parts, *captions, ", ".join(tags)) if part)


def _line(box: WholeBox, caption: str, drop: Drop, form: Form) -> str:
    x1, y1, x2, y2 = box
    if form in _CAPTION_KEYS:
        line = {"bbox_2d": box, _CAPTION_KEYS[form]: caption}
        return json.dumps({key: line[key] for key in _keys(drop, form)}, ensure_ascii=False)
    open_ref, close_ref, open_box, close_box = _BOX_WORDS[form]
    numbers = f"({x1},{y1}),({x2},{y2})" if form == "qwen" else f"[[{x1}, {y1}, {x2}, {y2}]]"
    named = "" if drop == "caption" else f"{open_ref}{caption}{close_ref}"
    return named if drop == "bbox" else f"{named}{open_box}{numbers}{close_box}"


def _keys(drop: Drop, form: Form) -> list[str]:
    """Keys of a line of a JSON form."""
    dropped = {"bbox": "bbox_2d", "caption": _CAPTION_KEYS[form]}.get(drop)
    return [key for key in ("bbox_2d", _CAPTION_KEYS[form]) if key != dropped]


def _check_caption(caption: str, where: str, form: Form) -> None:
    if form == "category":
        if caption not in _CATEGORIES:
            raise ArtifactNetError(f"{where}: {caption!r:.80} is no category of X-AIGD")
        return
    if not caption.strip() or len(caption) > MAX_CAPTION:
        raise ArtifactNetError(
            f"{where}: a caption must have 1 to {MAX_CAPTION} characters, not {len(caption)}: "
            f"{caption!r:.80}"
        )
    control = next((word for word in _CONTROL_WORDS if word in caption), None)
    if control is None and form in _BOX_WORDS and ("\n" in caption or caption != caption.strip()):
        control = "line breaks or outer white space"
    if control is not None:
        raise ArtifactNetError(f"{where}: a caption must not hold {control}: {caption!r:.80}")


def _elements(text: str, drop: Drop) -> tuple[str, str | None, str] | None:
    """Content of the strict form: lines before the tags, tags (None: dropped), and the verdict."""
    layout = _LAYOUTS.get(drop, _LAYOUT)
    if any(text.count(marker) != (marker in layout.pattern) for marker in MARKERS):
        return None
    found = layout.fullmatch(text)
    if found is None:
        return None
    parts = found.groupdict()
    return parts.get("lines", ""), parts.get("tags"), parts["word"]


def _strict(text: str, input_size: Size, drop: Drop, form: Form) -> _Strict | None:
    parts = _elements(text, drop)
    if parts is None:
        return None
    region_lines, tag_text, word = parts
    if word not in VERDICTS:
        return None
    lines = [line for line in map(str.strip, region_lines.split("\n")) if line]
    if len(lines) > MAX_REGIONS:
        return None
    tags = () if tag_text in (None, NO_TAG) else tuple(map(str.strip, tag_text.split(",")))
    if tags and (len(set(tags)) < len(tags) or not set(tags) <= set(TAGS)):
        return None
    if not VERDICTS[word]:
        if lines or tags:
            return None
    elif not lines and not tags and drop not in ("tags", "label"):
        return None
    reads = _strict_json if form in _CAPTION_KEYS else _strict_native
    regions = reads(lines, drop, form)
    if regions is None:
        return None
    for box, caption in regions:
        if drop != "bbox" and not _is_inside(box, input_size):
            return None
        if drop != "caption" and not _is_caption(caption, form):
            return None
    return VERDICTS[word], regions, tags


def _strict_json(lines: list[str], drop: Drop, form: Form) -> list[tuple[Any, Any]] | None:
    """Values of the keys on each line, not checked; None for a line that is not one object."""
    # One call for all lines is three times as fast. It is the same: a string cannot hold the line
    # break, and objects hold no objects, so that each `}` at the end of a line closes one.
    if not all(line[0] == "{" and line[-1] == "}" for line in lines):
        return None
    try:
        objects = _STRICT_JSON.decode("[" + ",\n".join(lines) + "]")
    except (ValueError, RecursionError):
        return None
    if len(objects) != len(lines):
        return None
    keys = set(_keys(drop, form))
    regions = []
    for pairs in objects:
        if type(pairs) is not tuple or len(pairs) != len(keys):
            return None
        found = dict(pairs)
        if found.keys() != keys:
            return None
        regions.append((found.get("bbox_2d"), found.get(_CAPTION_KEYS[form], "")))
    return regions


def _strict_native(lines: list[str], drop: Drop, form: Form) -> list[tuple[Any, Any]] | None:
    regions = []
    for line in lines:
        found = _NATIVE_LINES[form, drop].fullmatch(line)
        if found is None:
            return None
        box = None if drop == "bbox" else [int(found[name]) for name in _CORNERS]
        caption = "" if drop == "caption" else found["caption"]
        if caption != caption.strip():
            return None
        regions.append((box, caption))
    return regions


def _is_caption(text: Any, form: Form) -> bool:
    if form == "category":
        return type(text) is str and text in _CATEGORIES
    if type(text) is not str or not text.strip() or len(text) > MAX_CAPTION:
        return False
    return "<" not in text or not any(word in text for word in _CONTROL_WORDS)


def _is_inside(box: Any, input_size: Size) -> bool:
    if type(box) is not list or list(map(type, box)) != _FOUR_INTS:  # True is no number
        return False
    x1, y1, x2, y2 = box
    return bool(0 <= x1 < x2 <= input_size[0] and 0 <= y1 < y2 <= input_size[1])


def _contents(text: str, opening: str, closing: str) -> list[str]:
    """What is inside each element that is closed."""
    found = []
    at = text.find(opening)
    while at >= 0:
        end = text.find(closing, at)
        if end < 0:
            break
        found.append(text[at + len(opening) : end])
        at = text.find(opening, end)
    return found


def _tags(text: str) -> tuple[tuple[str, ...], int]:
    """Known tags without repetition, and the number of unknown ones."""
    tags: dict[str, None] = {}  # keeps the order
    unknown = 0
    for content in _contents(text, "<tag>", "</tag>"):
        for name in content.split(","):
            tag = name.strip().lower()
            tag = TAG_ALIASES.get(tag, tag)
            if tag in TAGS:
                tags[tag] = None
            elif tag not in ("", NO_TAG):
                unknown += 1
    return tuple(tags), unknown
