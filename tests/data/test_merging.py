"""Lines about one image become one, with what all of them say."""

import itertools
import json
from dataclasses import fields, replace

import cv2
import numpy as np
from annotated_files import load_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.sources.manifest import merge_lines
from artifactnet.types import Annotation

OPTIONAL = {
    "heatmap": st.sampled_from([None, "h1.png", "h2.png"]),
    "mask": st.sampled_from([None, "m1.png", "m2.png"]),
    "score": st.sampled_from([None, 0.25, 0.5]),
    "text": st.sampled_from([None, "one", "two"]),
}
LINES = st.lists(
    st.builds(
        lambda image, state, **known: ManifestLine(image, "u", 1, state, where="w", **known),
        image=st.sampled_from(["a.png", "./a.png", "d/../b.png", "b.png", "c.png"]),
        state=st.sampled_from(list(Annotation)),
        **OPTIONAL,
    ),
    max_size=8,
)


def base(line):
    return line.image.rsplit("/", 1)[-1]


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_each_image_once_with_the_first_of_everything(lines):
    found, warnings = merge_lines(lines, {"fake"})
    names = [base(line) for line in lines]
    assert len(found) == len(set(names))
    for line in found:
        group = [one for one, name in zip(lines, names, strict=True) if name == base(line)]
        assert line.image == group[0].image
        for key in OPTIONAL:
            said = [getattr(one, key) for one in group if getattr(one, key) is not None]
            assert getattr(line, key) == (said[0] if said else None)
        assert line.annotation == max(one.annotation for one in group)
        if len(group) == 1:
            assert line == group[0]
    torn = 0
    for name in set(names):
        group = [one for one, other in zip(lines, names, strict=True) if other == name]
        for first, second in itertools.combinations(group, 2):
            pairs = [(getattr(first, key), getattr(second, key)) for key in OPTIONAL]
            states = first.annotation, second.annotation
            pairs.append(tuple(None if s is Annotation.NONE else s for s in states))
            if any(None not in pair and pair[0] != pair[1] for pair in pairs):
                torn += 1
                break
    assert bool(warnings) == bool(torn)
    if torn:
        assert f"{torn} images have lines that contradict each other" in warnings[0]


def test_categories_are_those_of_the_first_line_that_knows_any():
    first = ManifestLine("a.png", "u", 1, Annotation.MASK)
    known = replace(first, categories=0b110)
    for lines, bits in (([first, known, replace(first, categories=0)], 0b110), ([first] * 2, 0)):
        ((found,), _) = merge_lines(lines, {"fake"})
        assert found.categories == bits
    assert {field.name for field in fields(ManifestLine)} >= {"categories", *OPTIONAL}


def test_what_lines_contradict_each_other_in_is_named():
    first = ManifestLine(
        "a.png", "u", 1, Annotation.MASK, None, "sdxl", "h.png", "m.png", 0.5, 0b10, "t"
    )
    more = {"heatmap": "g.png", "mask": "n.png", "score": 0.6, "categories": 0b1, "text": "s"}
    for key, value in {**more, "annotation": Annotation.CLEAN, "generator": "flux"}.items():
        found, (warning,) = merge_lines([first, replace(first, **{key: value})], {"sdxl", "flux"})
        assert len(found) == 1
        assert f"1 images have lines that contradict each other, e.g. a.png ({key}): " in warning
        assert getattr(found[0], key) == getattr(first, key)
    near = replace(first, score=0.50005, heatmap="d/../h.png")
    assert merge_lines([first, near], {"sdxl"})[1] == []


def test_any_line_of_a_wanted_generator_keeps_the_image_and_goes_first():
    lines = [
        ManifestLine("a.png", "x", 1, Annotation.MASK, None, "sdxl", "h.png"),
        ManifestLine("a.png", "y", 1, Annotation.NONE, None, "flux", score=0.5),
        ManifestLine("b.png", "z", 1, Annotation.NONE, None, "sdxl"),
    ]
    (found,), warnings = merge_lines(lines, {"real", "flux"})
    assert (found.uid, found.generator, found.heatmap, found.score) == ("y", "flux", "h.png", 0.5)
    assert "(generator)" in warnings[0]
    assert [line.generator for line in merge_lines(lines, {"sdxl", "flux"})[0]] == ["sdxl", "sdxl"]


def test_files_that_are_missing_or_named_in_two_ways(tmp_path, monkeypatch):
    (tmp_path / "h.png").write_bytes(b"")
    gone, there = (
        ManifestLine("a.png", "u", 1, Annotation.MASK, heatmap=str(tmp_path / name))
        for name in ("gone.png", "h.png")
    )
    for skip, expected in ((True, there), (False, gone)):
        assert merge_lines([gone, there], {"fake"}, skip=skip)[0][0].heatmap == expected.heatmap
    assert merge_lines([gone, gone], {"fake"}, skip=True)[0][0].heatmap == gone.heatmap
    monkeypatch.chdir(tmp_path)
    names = "m/a.png", str(tmp_path / "m/a.png")
    lines = [ManifestLine(name, "u", 1, Annotation.NONE) for name in names]
    assert len(merge_lines(lines, {"fake"})[0]) == 1


def test_mixed_data_sets_show_an_image_of_both_once(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((16, 24, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "h.png"), np.full((16, 24), 255, np.uint8))
    row = {"image": "a.png", "uid": "a", "label": 1, "split": "train", "annotation": "none"}
    (tmp_path / "scores.jsonl").write_text(json.dumps({**row, "score": 0.5}))
    marked = {**row, "image": "./a.png", "annotation": "mask", "heatmap": "h.png"}
    (tmp_path / "maps.jsonl").write_text(json.dumps(marked))
    (source,) = load_manifest(tmp_path).values()
    assert len(source.records) == 1
    sample = source.load(0)
    assert (sample.score, sample.heatmap.min()) == (0.5, 1)
    assert sample.record.annotation is Annotation.MASK
    assert "each is used once" in " ".join(source.warnings)
