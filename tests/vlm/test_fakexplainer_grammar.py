"""The form of answers: written, asked for to the letter, and read from anything."""

import json
import math
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.taxonomy import TAG_ALIASES, TAGS
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.coordinates import to_image
from artifactnet.vlm.fakexplainer.grammar import (
    MARKERS,
    Answer,
    is_strict,
    read,
    read_strict,
    reference_text,
    write,
)

SIZE = (1000, 800)
FORMS = ("json", "qwen", "internvl")
DROPS = ("none", "bbox", "caption", "tags", "label")
REAL = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"


def read_in(text: str, size=SIZE) -> Answer:
    return read(text, size, size)


# --- writing ---


def test_the_written_form():
    regions = [Region((100, 50, 300, 200), 'sign with "EXIT{" in Ω')]
    text = write(True, regions, ["wrong texture", "other anomalies"], (512, 512), (504, 504))
    assert text == (
        "<think>\n"
        '{"bbox_2d": [98, 49, 295, 197], "label": "sign with \\"EXIT{\\" in Ω"}\n'
        "<tag>wrong texture, other anomalies</tag>\n"
        "</think>\n"
        "<verdict>generated</verdict>"
    )
    assert write(False, (), (), (512, 512), (504, 504)) == REAL


@pytest.mark.parametrize(
    ("form", "drop", "line"),
    [
        (
            "qwen",
            "none",
            "<|object_ref_start|>hand<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
        ),
        ("internvl", "none", "<ref>hand</ref><box>[[1, 2, 3, 4]]</box>"),
        ("qwen", "caption", "<|box_start|>(1,2),(3,4)<|box_end|>"),
        ("internvl", "bbox", "<ref>hand</ref>"),
        ("json", "bbox", '{"label": "hand"}'),
        ("json", "caption", '{"bbox_2d": [1, 2, 3, 4]}'),
    ],
)
def test_lines_of_other_forms(form, drop, line):
    text = write(True, [Region((1, 2, 3, 4), "hand")], (), SIZE, SIZE, drop, form)
    assert text.split("\n")[1] == line


def test_dropped_elements():
    regions = [Region((1, 2, 3, 4), "hand")]
    assert "<tag>" not in write(True, regions, TAGS[:1], SIZE, SIZE, "tags")
    assert write(True, regions, TAGS[:1], SIZE, SIZE, "label") == "<verdict>generated</verdict>"
    no_tags = "<think>\n</think>\n<verdict>real</verdict>"
    assert write(False, (), (), SIZE, SIZE, "tags") == no_tags


def captioned(caption: str) -> list[Region]:
    return [Region((1, 2, 3, 4), "hand"), Region((1, 2, 3, 4), caption)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((False, captioned("a"), ()), "a real image has neither"),
        ((False, (), TAGS[:1]), "a real image has neither"),
        ((True, captioned("a") * 17, ()), "34 regions, an answer has at most 32"),
        ((True, captioned("a" * 301), ()), r"regions\[1\]: a caption must have 1 to 300.*301"),
        ((True, captioned(" "), ()), r"regions\[1\]: a caption must have"),
        ((True, captioned("see </think>"), ()), r"regions\[1\].*not hold </think>"),
        ((True, captioned("a <box> of"), ()), r"regions\[1\].*not hold <box>"),
        ((True, (), ("bad hands",)), "distinct names of structure.*bad hands"),
        ((True, (), ("wrong texture",) * 2), "distinct names"),
    ],
)
def test_what_cannot_be_written(arguments, message):
    with pytest.raises(ArtifactNetError, match=message):
        write(*arguments, SIZE, SIZE)


def test_native_captions_are_one_line():
    write(True, captioned("two\nlines"), (), SIZE, SIZE)
    with pytest.raises(ArtifactNetError, match="line breaks"):
        write(True, captioned("two\nlines"), (), SIZE, SIZE, form="qwen")


def test_a_fake_without_evidence_is_written_but_not_strict():
    text = write(True, (), (), SIZE, SIZE)
    assert not is_strict(text, SIZE)
    assert read_in(text) == Answer(True)


# --- writing, then reading ---

CAPTIONS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40
).filter(lambda text: text == text.strip() and "<" not in text)


@st.composite
def answers(draw, max_regions=6):
    """Arguments of `write` with boxes that are whole in the coordinates of the model."""
    image = draw(st.sampled_from([(512, 512), (640, 480), (97, 1300)]))
    size = draw(st.sampled_from([(1000, 1000), (504, 504), (56, 1288)]))
    regions = []
    for caption in draw(st.lists(CAPTIONS, max_size=max_regions)):
        x1, y1 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
        x2 = draw(st.integers(x1 + 1, size[0]))
        y2 = draw(st.integers(y1 + 1, size[1]))
        regions.append(Region(to_image((x1, y1, x2, y2), image, size), caption))
    tags = tuple(draw(st.lists(st.sampled_from(TAGS), unique=True)))
    is_fake = bool(regions or tags)
    return is_fake, tuple(regions), tags, image, size


@given(answers(max_regions=32), st.sampled_from(FORMS))
def test_what_is_written_is_strict_and_is_read_again(arguments, form):
    is_fake, regions, tags, image, size = arguments
    text = write(*arguments, form=form)
    assert is_strict(text, size, form=form)
    assert read(text, image, size) == Answer(is_fake, regions, tags)
    assert read_strict(text, image, size, form=form) == Answer(is_fake, regions, tags)


@given(answers(), st.sampled_from(FORMS), st.sampled_from(DROPS))
def test_what_is_dropped_is_missing_and_no_more(arguments, form, drop):
    is_fake, regions, tags, image, size = arguments
    text = write(*arguments, drop, form)
    found = read(text, image, size)
    assert is_strict(text, size, drop, form)
    assert read_strict(text, image, size, drop, form) == found
    captions = tuple(region.caption for region in regions)
    assert found.is_fake is is_fake
    assert found.tags == (() if drop in ("tags", "label") else tags)
    boxes = [region.bbox for region in regions]
    assert [r.bbox for r in found.regions] == ([] if drop in ("bbox", "label") else boxes)
    if drop == "caption":
        assert {region.caption for region in found.regions} <= {""}
    assert found.captions == (captions if drop == "bbox" else ())
    assert (found.dropped, found.unknown_tags) == (0, 0)
    for other in DROPS:
        if other != drop and (regions or {drop, other} - {"none", "bbox", "caption"}):
            # an image without regions is written alike with boxes, captions or both
            assert not is_strict(text, size, other, form), other


# --- the strict form ---

R1 = '{"bbox_2d": [1, 2, 30, 40], "label": "hand with six fingers"}'
R2 = '{"bbox_2d": [0, 0, 1000, 800], "label": "sign"}'
VALID = f"<think>\n{R1}\n{R2}\n<tag>wrong texture, other anomalies</tag>\n</think>\n"
VALID += "<verdict>generated</verdict>"


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        f"  {VALID}\n\n",
        VALID.replace("\n", "\r\n"),
        VALID.replace("\n<tag>", "\n\n  \n<tag>"),
        VALID.replace(", other", ",other"),
        VALID.replace("</think>\n<verdict>", "</think><verdict>"),
        VALID.replace(R1, '{ "label": "a", "bbox_2d": [1,2,3,4] }'),
        VALID.replace("sign", "s" * 300),
        VALID.replace(R2, "\n".join([R2] * 31)),
        VALID.replace("wrong texture, other anomalies", "none"),
        VALID.replace(f"{R1}\n{R2}\n", ""),
        VALID.replace("sign", "a { brace } and [ bracket ] and \\n \\u00e9"),
        REAL,
    ],
)
def test_strict_texts(text):
    assert is_strict(text, SIZE)
    assert read_strict(text, SIZE, SIZE) == read_in(text)


def box(text: str) -> str:
    return VALID.replace("[1, 2, 30, 40]", text)


BROKEN = {
    **{f"no {marker}": VALID.replace(marker, "") for marker in MARKERS},
    **{f"two {marker}": VALID.replace(marker, marker * 2) for marker in MARKERS},
    **{f"{marker} at the end": VALID.replace(marker, "") + marker for marker in MARKERS[:5]},
    **{f"{marker} at the start": marker + VALID.replace(marker, "") for marker in MARKERS[1:]},
    **{f"{marker} in capitals": VALID.replace(marker, marker.upper()) for marker in MARKERS},
    "text before": f"Sure. {VALID}",
    "text after": f"{VALID}.",
    "text before the verdict": VALID.replace("</think>\n", "</think>\nSo\n"),
    "text after the tags": VALID.replace("</tag>\n", "</tag>\nSo\n"),
    "text between the lines": VALID.replace(R2, f"and\n{R2}"),
    "text on a line": VALID.replace(R2, f"- {R2}"),
    "tags after the thoughts": VALID.replace("</think>\n", "").replace("</tag>", "</tag></think>")
    + "</think>",
    "a comma after an object": VALID.replace(R1, f"{R1},"),
    "two objects on a line": VALID.replace(f"{R1}\n{R2}", f"{R1}, {R2}"),
    "two objects without a comma": VALID.replace(f"{R1}\n{R2}", f"{R1} {R2}"),
    "an object on two lines": VALID.replace(R1, R1.replace(', "label"', ',\n"label"')),
    "a list": VALID.replace(f"{R1}\n{R2}", f"[{R1}, {R2}]"),
    "a list a line": VALID.replace(R1, f"[{R1}]"),
    "a fence": VALID.replace(R1, f"```json\n{R1}").replace(R2, f"{R2}\n```"),
    "an object that is split and one line of two": VALID.replace(
        f"{R1}\n{R2}", f"{R1[:30]}\n{R1[30:]},{R2}"
    ),
    "a string over two lines": VALID.replace(
        f"{R1}\n{R2}", f'{{"label": "}}\n{{", "bbox_2d": [1, 2, 3, 4]}},{R2}'
    ),
    "no box": VALID.replace('"bbox_2d": [1, 2, 30, 40], ', ""),
    "no label": VALID.replace(', "label": "sign"', ""),
    "another key": VALID.replace('"sign"}', '"sign", "score": 1}'),
    "a wrong key": VALID.replace("bbox_2d", "bbox"),
    "a doubled key": VALID.replace('"sign"}', '"sign", "label": "sign"}'),
    "a doubled key instead of the other": VALID.replace('"bbox_2d": [1, 2, 30, 40]', '"label": 1'),
    "an object in an object": VALID.replace("[1, 2, 30, 40]", f"[{R1}]"),
    "single quotes": VALID.replace(R2, R2.replace('"', "'")),
    "pairs instead of an object": VALID.replace(R2, '[["bbox_2d", [1, 2, 3, 4]], ["label", "a"]]'),
    "a float": box("[1.0, 2, 30, 40]"),
    "an exponent": box("[1e1, 2, 30, 40]"),
    "a string": box('["1", 2, 30, 40]'),
    "true": box("[true, 2, 30, 40]"),
    "null": box("[null, 2, 30, 40]"),
    "NaN": box("[NaN, 2, 30, 40]"),
    "infinity": box("[1, 2, Infinity, 40]"),
    "a leading zero": box("[01, 2, 30, 40]"),
    "three numbers": box("[1, 2, 30]"),
    "five numbers": box("[1, 2, 30, 40, 50]"),
    "nested numbers": box("[[1, 2, 30, 40]]"),
    "no list": box("1"),
    "left of the image": box("[-1, 2, 30, 40]"),
    "above the image": box("[1, -2, 30, 40]"),
    "right of the image": box("[1, 2, 1001, 40]"),
    "below the image": box("[1, 2, 30, 801]"),
    "far outside": box(f"[1, 2, 30, {'9' * 5000}]"),
    "no width": box("[30, 2, 30, 40]"),
    "no height": box("[1, 40, 30, 40]"),
    "corners swapped": box("[30, 2, 1, 40]"),
    "an empty label": VALID.replace('"sign"', '""'),
    "a blank label": VALID.replace('"sign"', '"  "'),
    "a label too long": VALID.replace('"sign"', f'"{"s" * 301}"'),
    "a label that is no text": VALID.replace('"sign"', "7"),
    "a box in a label": VALID.replace('"sign"', '"<box>[[1, 2, 3, 4]]</box>"'),
    "an escaped marker in a label": VALID.replace('"sign"', '"\\u003c/think>"'),
    "a raw tab in a label": VALID.replace('"sign"', '"a\tb"'),
    "33 lines": VALID.replace(R2, "\n".join([R2] * 32)),
    "deep nesting": VALID.replace(R2, f'{{"bbox_2d": {"[" * 3000}1{"]" * 3000}}}'),
    "an unknown tag": VALID.replace("other anomalies", "bad hands"),
    "an alias": VALID.replace("wrong texture", "texture errors"),
    "a doubled tag": VALID.replace("other anomalies", "wrong texture"),
    "none beside a tag": VALID.replace("other anomalies", "none"),
    "no tag": VALID.replace("wrong texture, other anomalies", ""),
    "a comma too many": VALID.replace("other anomalies", "other anomalies,"),
    "semicolons": VALID.replace("texture, other", "texture; other"),
    "a tag in capitals": VALID.replace("wrong", "Wrong"),
    "a verdict in capitals": VALID.replace("generated<", "Generated<"),
    "space in the verdict": VALID.replace("generated<", " generated<"),
    "an unknown verdict": VALID.replace("generated<", "fake<"),
    "an empty verdict": VALID.replace("generated<", "<"),
    "two words": VALID.replace("generated<", "generated real<"),
    "real with regions and tags": VALID.replace("generated<", "real<"),
    "real with regions": VALID.replace("generated<", "real<").replace(
        "wrong texture, other anomalies", "none"
    ),
    "real with tags": REAL.replace("none", "wrong texture"),
    "generated without both": REAL.replace("real<", "generated<"),
    "nothing": "",
    "prose": "The image is generated.",
    "cut off": VALID[:-3],
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_texts(name):
    assert BROKEN[name] != VALID
    assert not is_strict(BROKEN[name], SIZE)
    assert read_strict(BROKEN[name], SIZE, SIZE) is None
    read_in(BROKEN[name])


def _breaks(draw: random.Random, text: str) -> str:
    """A valid JSON answer with at least one region, with one rule broken at a random place."""
    lines = text.split("\n")
    k = draw.randrange(1, len(lines) - 3)  # a line of a region
    whole = json.loads(lines[k])
    corners = list(whole["bbox_2d"])
    at = draw.randrange(4)
    marker = draw.choice(MARKERS)
    kinds = {
        "missing marker": lambda: text.replace(marker, ""),
        "doubled marker": lambda: text.replace(marker, marker + draw.choice(["", "\n"]) + marker),
        "marker inserted": lambda: _inserted(draw, text, marker),
        "line without end": lambda: "\n".join([*lines[:k], lines[k][:-1], *lines[k + 1 :]]),
        "prose": lambda: "\n".join([*lines[:k], "A region:", *lines[k:]]),
        "outside": lambda: changed({"bbox_2d": [*corners[:at], 10_000, *corners[at + 1 :]]}),
        "below zero": lambda: changed({"bbox_2d": [*corners[:at], -1, *corners[at + 1 :]]}),
        "float": lambda: changed({"bbox_2d": [*corners[:at], 0.5, *corners[at + 1 :]]}),
        "too short": lambda: changed({"bbox_2d": corners[:at] + corners[at + 1 :]}),
        "turned": lambda: changed({"bbox_2d": corners[2:] + corners[:2]}),
        "renamed": lambda: changed({"box": corners, "bbox_2d": None}),
        "long": lambda: changed({"label": "x" * draw.randint(301, 900)}),
        "verdict": lambda: text.replace("generated</v", draw.choice(["real</v", "both</v", "</v"])),
        "tag": lambda: text.replace("</tag>", draw.choice([", bad", ",", ", none"]) + "</tag>"),
        "too many": lambda: "\n".join([*lines[:k], *[lines[k]] * 33, *lines[k + 1 :]]),
    }  # fmt: skip

    def changed(values) -> str:
        new = {key: value for key, value in {**whole, **values}.items() if value is not None}
        return "\n".join([*lines[:k], json.dumps(new), *lines[k + 1 :]])

    return kinds[draw.choice(sorted(kinds))]()


def _inserted(draw: random.Random, text: str, piece: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + piece + text[at:]


@settings(max_examples=300)
@given(answers(), st.randoms(use_true_random=False))
def test_any_broken_rule_breaks_the_form(arguments, draw):
    _, regions, tags, image, size = arguments
    regions = regions or (Region((1, 1, 30, 30), "hand"),)
    text = write(True, regions, tags, image, size)
    broken = _breaks(draw, text)
    assert is_strict(text, size)
    assert not is_strict(broken, size), broken


@pytest.mark.parametrize(
    ("form", "old", "new"),
    [
        ("qwen", "(1,2)", "(1, 2)"),
        ("qwen", "(1,2)", "(01,2)"),
        ("qwen", "(1,2)", "(5,2)"),
        ("qwen", "(1,2),(3,4)", "[1,2,3,4]"),
        ("qwen", "(3,4)", "(3,801)"),
        ("qwen", "hand", ""),
        ("qwen", "hand", " "),
        ("qwen", "hand", " hand"),
        ("qwen", "hand", "h" * 301),
        ("qwen", "hand", "a<|box_start|>b"),
        ("qwen", "<|box_end|>", ""),
        ("internvl", "[[1, 2, 3, 4]]", "[1, 2, 3, 4]"),
        ("internvl", "[[1, 2, 3, 4]]", "[[1, 2, 3, 4], [1, 2, 3, 4]]"),
        ("internvl", "[[1, 2, 3, 4]]", "[[1, 2, 3, -4]]"),
        ("internvl", "<ref>hand</ref>", ""),
        ("internvl", "</box>", "</box> and"),
    ],
)
def test_broken_native_lines(form, old, new):
    text = write(True, [Region((1, 2, 3, 4), "hand")], (), SIZE, SIZE, form=form)
    assert is_strict(text, SIZE, form=form)
    assert old in text
    assert not is_strict(text.replace(old, new), SIZE, form=form)
    assert not is_strict(text, SIZE)
    assert not is_strict(VALID, SIZE, form=form)


# --- reading ---


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("<verdict>generated</verdict>", True),
        ("<verdict> Real\n</verdict>", False),
        ("<verdict>real</verdict> or <verdict>real</verdict>", False),
        ("<verdict>real</verdict><verdict>generated</verdict>", None),
        ("<verdict>real</verdict><verdict>?</verdict>", None),
        ("<verdict>fake</verdict>", None),
        ("<verdict>generated", None),
        ("</verdict>generated<verdict>", None),
        ("<verdict>real<verdict>real</verdict>", None),
        ("The image is generated.", None),
    ],
)
def test_verdicts(text, verdict):
    assert read_in(text).is_fake is verdict


A, B = Region((1.0, 2.0, 30.0, 40.0), "hand"), Region((5.0, 5.0, 6.0, 7.5), "sign")


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": [1, 2, 30, 40], "label": "hand"} {"bbox_2d": [5, 5, 6, 7.5], "label": "sign"}',
        '[{"bbox_2d": [1, 2, 30, 40], "label": "hand"}, {"label":"sign","bbox_2d":[5,5,6,7.5]}]',
        'See:\n```json\n[\n  {\n    "bbox_2d": [1, 2, 30, 40],\n    "label": "hand"\n  },\n'
        '  {"bbox": [5, 5, 6, 7.5], "caption": "sign", "score": 0.5}\n]\n```\n',
        '{"regions": [{"bbox_2d": [1, 2, 30, 40], "label": "hand"}, '
        '{"bbox_2d": [5, 5, 6, 7.5], "label": "sign"}], "n": 2}',
        'a 12" sign {"bbox_2d": [1, 2, 30, 40], "label": "hand"} "x { '
        '{"bbox_2d": [5, 5, 6, 7.5], "label": "sign"}',
        "<|object_ref_start|>hand<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|>"
        "<|object_ref_start|>sign<|object_ref_end|><|box_start|>[5, 5, 6, 7.5]<|box_end|>",
        "<ref>hand</ref><box>[[1, 2, 30, 40]]</box> and <ref>sign</ref> <box>[[5,5,6,7.5]]</box>",
        '{"bbox_2d": [1, 2, 30, 40], "label": "hand"}<ref>sign</ref><box>[[5, 5, 6, 7.5]]</box>',
    ],
)
@pytest.mark.parametrize("end", ["", "<verdict>generated</verdict>"])
def test_regions_of_many_forms(text, end):
    found = read_in(text + end)
    assert found.regions == (A, B)
    assert (found.dropped, found.captions) == (0, ())


def test_several_boxes_of_one_caption():
    found = read_in("<ref>eye</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box> <ref>ear</ref>")
    assert [region.bbox for region in found.regions] == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert [region.caption for region in found.regions] == ["eye", "eye"]
    assert found.captions == ("ear",)


def test_regions_after_the_verdict_do_not_count():
    assert read_in(f"<verdict>generated</verdict>{R1}<tag>wrong texture</tag>") == Answer(True)


@pytest.mark.parametrize(
    ("box", "read_as"),
    [
        ("[-5, -5, 2000, 2000]", (0, 0, 1000, 800)),
        ("[1e300, 2, 3e300, 40]", None),
        ("[-1e300, -1e300, 1e300, 1e300]", (0, 0, 1000, 800)),
        (f"[0, 0, {'9' * 400}, 9]", None),  # beyond the largest float
        (f"[0, 0, {'9' * 300}, 9]", (0, 0, 1000, 9)),
        ("[1e999, 2, 30, 40]", None),
        ("[NaN, 2, 30, 40]", None),
        ("[1, 2, Infinity, 40]", None),
        ("[30, 2, 1, 40]", None),
        ("[1, 2, 1, 40]", None),
        ("[1100, 2, 1200, 40]", None),
        ("[1, 2, 3]", None),
        ("[1, 2, 3, 4, 5]", None),
        ('["1", "2", "30", "40"]', None),
        ("[true, 2, 30, 40]", None),
        ("[[1, 2, 30, 40]]", None),
        ("[1, 2, 30, {}]", None),
        ("null", None),
        ("7", None),
        ("[1, 2, 30, 40", None),
        (f"{'[' * 5000}{']' * 5000}", None),
    ],
)
def test_odd_boxes_are_clipped_or_counted(box, read_as):
    found = read_in(f'{{"bbox_2d": {box}, "label": "odd"}}\n{R1}')
    kept = [region.bbox for region in found.regions]
    assert kept[-1] == (1, 2, 30, 40)
    assert kept[:-1] == ([] if read_as is None else [read_as])
    assert found.dropped == (read_as is None)


def test_native_boxes_that_cannot_be_used_are_counted():
    text = "<box>[[1, 2, 3]]</box><box></box><box>[[9, 9, 9, 9]]</box><box>[[1, 2, 3, 4]]</box>"
    found = read_in(text + f"<|box_start|>(1,2),({'9' * 400},4)<|box_end|>")
    assert [region.bbox for region in found.regions] == [(1, 2, 3, 4)]
    assert found.dropped == 4


def test_a_cut_off_answer_keeps_what_is_whole():
    found = read_in(f'<think>\n{R1}\n{{"bbox_2d": [5, 6, 7')
    assert [region.bbox for region in found.regions] == [(1, 2, 30, 40)]
    assert (found.is_fake, found.dropped) == (None, 1)


def test_captions_that_look_like_keys():
    text = write(True, captioned("bbox") + captioned('"bbox_2d": [1'), (), SIZE, SIZE)
    found = read_in(text)
    assert [region.caption for region in found.regions] == ["hand", "bbox", "hand", '"bbox_2d": [1']
    assert found.dropped == 0


def test_captions_that_are_no_text():
    found = read_in('{"bbox_2d": [1, 2, 3, 4], "label": 7} {"bbox_2d": [1, 2, 3, 4]}')
    assert [region.caption for region in found.regions] == ["", ""]


def test_tags_by_any_of_their_names():
    for alias, name in TAG_ALIASES.items():
        assert read_in(f"<tag> {alias.upper()} </tag>").tags == (name,)
    found = read_in(
        "<tag>other anomalies, bad hands, , Wrong Texture,</tag> <tag>wrong texture, ?, none</tag>"
    )
    assert found.tags == ("other anomalies", "wrong texture")
    assert found.unknown_tags == 2
    assert read_in("<tag>none</tag>").unknown_tags == 0
    assert read_in("<tag>wrong texture").tags == ()


def test_boxes_come_back_in_pixels_of_the_image():
    text = '{"bbox_2d": [98, 49, 295, 197], "label": "a"}'
    (region,) = read(text, (512, 512), (504, 504)).regions
    assert region.bbox == pytest.approx((99.5556, 49.7778, 299.6825, 200.1270), abs=5e-5)


PIECES = [
    *(*MARKERS, "<THINK>", "<verdict>real</verdict>", "<verdict>generated</verdict>", R1, R2),
    *("{", "}", "[", "]", '"', "\\", "\\u12", ",", ":", "\n", "```json", '{"bbox_2d":', "[1, 2"),
    *("[[1,2,3,4]]", "[1,2,3,4]}", '"label"', '"label": "a"', "NaN", "1e999", "-Infinity", "null"),
    *("<ref>", "</ref>", "<box>", "</box>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "(1,2),(3,4)", "9" * 500, "\ud800", "\x00", "\u2028", "é"),
    *TAGS,
    *TAG_ALIASES,
]


def test_reading_never_raises():
    draw = random.Random(0)
    seen = {True: 0, False: 0, None: 0}
    regions = 0
    for _ in range(10_000):
        if draw.random() < 0.2:
            text = "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(60)))
        elif draw.random() < 0.3:  # a valid answer with some characters changed
            characters = list(VALID)
            for _ in range(draw.randrange(1, 8)):
                characters[draw.randrange(len(characters))] = draw.choice(PIECES)
            text = "".join(characters)
        else:
            text = "".join(draw.choice(PIECES) for _ in range(draw.randrange(40)))
        found = read(text, (640, 480), (1000, 1000))
        seen[found.is_fake] += 1
        regions += len(found.regions)
        for region in found.regions:
            x1, y1, x2, y2 = region.bbox
            assert 0 <= x1 < x2 <= 640
            assert 0 <= y1 < y2 <= 480
            assert all(map(math.isfinite, region.bbox))
        assert set(found.tags) <= set(TAGS)
        assert min(found.dropped, found.unknown_tags) >= 0
        if is_strict(text, (1000, 1000)):
            assert read_strict(text, (640, 480), (1000, 1000)) == found
            assert found.is_fake is not None
            assert found.dropped == found.unknown_tags == 0
    assert min(*seen.values(), regions) > 100  # or the texts are too tame


HOSTILE = [
    *("<think>", "<think><think>", '{"bbox_2d":', "[", "<box>[[", "{", '{"', "<verdict>", "<tag>"),
    *("</verdict><verdict>", "<|box_start|>(", '{"a":[', '"', '\\"', "<ref>", " ", "\n", "9", "<"),
    *('{"\\"', '{"\\\\"', '{"a":"{', '{ "', '{"bbox_2d": [1,2,3,4], "label": "', '":"{', '{":'),
    *('{"a":1}', '{"a":[[1],', "<tag>wrong texture,", "<box>9", '{"bbox":[[[[[[', '{"":"\\"'),
    *(R1, f"{R1}\n", "(1,2),(3,4)<|box_end|>", '{"a":NaN}', ",", "\\", '{"a\\":"', "{\n", "[1,"),
]


def _seconds(text: str) -> float:
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        read(text, (512, 512), (504, 504))
        for form in FORMS:
            is_strict(text, (504, 504), form=form)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_linear_time(piece):
    """Quadratic time would be 64 times as long for 8 times the text, and many seconds."""
    for opening, closing in (
        ("", ""),
        ('{"bbox":', "}"),
        ("<think>\n", "\n<tag>none</tag></think><verdict>real</verdict>"),
        ("[" * 900, ""),
    ):
        short, long = (
            opening + piece * (length // len(piece)) + closing for length in (25_000, 200_000)
        )
        taken = _seconds(long)
        assert taken < 1
        assert taken < 24 * _seconds(short) + 0.02


# --- text for BLEU and ROUGE ---


def test_reference_text():
    regions = [
        Region((5, 9, 6, 10), "third"),
        Region((7, 2, 9, 4), "second"),
        Region((1, 2, 9, 4), "first"),
        Region((0, 0, 1, 1), ""),
    ]
    assert reference_text(regions, ["wrong texture", "artistic style"]) == (
        "first. second. third. wrong texture, artistic style"
    )
    assert reference_text(regions[:1], ()) == "third"
    assert reference_text((), ["artistic style"]) == "artistic style"
    assert reference_text((), TAGS[:1], ["one", "two"]) == f"one. two. {TAGS[0]}"
    assert reference_text((), ()) == ""


def test_captions_without_boxes_are_kept_in_their_order():
    text = write(True, [B, A], ("wrong texture",), SIZE, SIZE, "bbox")
    found = read_in(text)
    assert re.findall(r'"label": "(\w+)"', text) == list(found.captions) == ["sign", "hand"]
    assert reference_text(found.regions, found.tags, found.captions) == "sign. hand. wrong texture"
