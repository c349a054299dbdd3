"""What a report's HTML file holds, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import report_samples as samples
from report_pages import write

from artifactnet.explanation.overlay import colorize
from artifactnet.explanation.report.page import embed, visible, write_page
from artifactnet.explanation.report.tables import NOTHING, summary_figures, summary_tables

URI = re.compile(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*")


@pytest.fixture
def hostile(tmp_path):
    entries = [samples.entry(k, name) for k, name in enumerate(samples.HOSTILE)]
    bad = samples.HOSTILE[0]
    for entry in entries:
        entry["generator"], entry["warnings"] = samples.HOSTILE[1], [bad]
    chart = {"name": "x", "title": bad, "description": bad, "svg": samples.CHART}
    method = {"name": bad, "label": bad, "scale": "minmax", "description": bad}
    entries[0]["layers"][f"heat:{bad}"] = entries[0]["thumb"]
    changes = {
        "title": samples.HOSTILE[1],
        "notices": [bad],
        "warnings": [samples.HOSTILE[2]],
        "methods": [*samples.METHODS, method],
        "charts": [chart],
        "failures": [{"name": name, "reason": bad} for name in samples.HOSTILE],
    }
    return entries, *write(tmp_path, entries, **changes)


def test_texts_from_data_never_become_markup(hostile):
    entries, page, path = hostile
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    # of its own images the page has two, in the view of one image, and no source for them
    assert [attrs.get("src") for attrs in page.named("img")] == [None, None]
    scripts = page.named("script")
    assert len(scripts) == len(entries) + 3
    assert [attrs for attrs in scripts if attrs.get("type") != "application/json"] == [{}]
    raw = path.read_text(encoding="utf-8")
    for text in ("<img src=x", "</script><script>alert", "<!--<script>"):
        assert text not in raw


def test_texts_from_data_read_as_they_are(hostile):
    _, page, _ = hostile
    text = "".join(page.texts)
    for name in samples.SHOWN:
        assert name in text  # in the list of failures
    assert [e["name"] for e in page.json("index")] == samples.SHOWN
    assert page.json("head")["generators"] == [samples.HOSTILE[1]]


def test_scripts_hold_nothing_that_html_could_read(hostile):
    for tag, attributes, text in hostile[1].raw:
        if attributes.get("type") == "application/json":
            assert tag == "script"
            assert not set("<>&\u2028\u2029") & set(text)
            assert text.isascii()


@pytest.mark.parametrize("text", [*samples.HOSTILE, "\udcff", "\x00", "é😀"])
def test_embedded_json_is_the_same_data(text):
    data = {text: [text, None, 1.5, True]}
    assert json.loads(embed(data)) == data


def test_index_and_layers_are_the_entries(tmp_path):
    entries = samples.entries(6)
    page, _ = write(tmp_path, entries)
    index = page.json("index")
    keys = [layer["key"] for layer in page.json("head")["layers"]]
    for entry, found in zip(entries, index, strict=True):
        assert page.json(f"layers-{entry['id']}") == entry["layers"]
        missing = found.pop("missing")
        assert missing == [key for key in keys if key not in entry["layers"]]
        assert found == {k: v for k, v in entry.items() if k != "layers"}
    assert any(entry["missing"] for entry in page.json("index"))


def test_nothing_is_fetched(tmp_path):
    _, path = write(tmp_path, samples.entries(3))
    raw = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' <]*", raw)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in raw
    assert "@import" not in raw


def test_policy_admits_this_script_and_style_alone(tmp_path):
    page, _ = write(tmp_path, samples.entries(2))
    (policy,) = [a["content"] for a in page.named("meta") if "http-equiv" in a]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag in ("script", "style"):
        (text,) = [t for name, attrs, t in page.raw if name == tag and not attrs]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not any("style" in attributes for _, attributes in page.elements)


def test_no_images(tmp_path):
    page, _ = write(tmp_path, [])
    assert page.json("index") == []
    assert "This report has no images." in "".join(page.texts)
    assert page.named("input") == []


def test_one_image_with_nothing_but_itself(tmp_path):
    entry = samples.entry(1, labelled=False, methods=[], masks=False)
    page, _ = write(tmp_path, [entry], methods=[], charts=[])
    assert [a["value"] for a in page.named("input") if a["type"] == "radio"] == ["image"]
    assert {a["id"] for a in page.named("select")} == {"verdict", "order"}
    assert "1 image," in " ".join("".join(page.texts).split())


def test_unlabelled_images_are_never_called_wrong(tmp_path):
    page, _ = write(tmp_path, samples.entries(5, labelled=False))
    assert "wrong" not in [a["value"] for a in page.named("option")]
    assert "without labels" in "".join(page.texts)
    labelled, _ = write(tmp_path, samples.entries(5))
    assert "wrong" in [a["value"] for a in labelled.named("option")]


def test_layers_offered_are_those_that_exist(tmp_path):
    page, _ = write(tmp_path, samples.entries(8, labelled=False))
    radios = [a for a in page.named("input") if a["type"] == "radio"]
    heats = [f"heat:{m['name']}" for m in samples.METHODS]
    assert [a["value"] for a in radios] == ["image", *heats, "mask"]
    assert [a["value"] for a in radios if "checked" in a] == heats[:1]


@pytest.mark.parametrize(("masks", "name"), [(True, "Artifact share"), (False, "Area of the map")])
def test_an_area_of_a_map_is_not_called_an_artifact(tmp_path, masks, name):
    page, _ = write(tmp_path, samples.entries(8, labelled=False, masks=masks))
    assert page.json("head")["share"]["name"].startswith(name)
    assert f"{page.json('head')['share']['name']}, largest first" in "".join(page.texts)


def test_part_of_the_images_is_said_to_be_a_part(tmp_path):
    entries = samples.entries(3)
    data = {**samples.head(entries)["data"], "of": 4000}
    page, _ = write(tmp_path, entries, data=data)
    assert "3 of 4000 images" in " ".join("".join(page.texts).split())


def test_legend_has_the_colours_of_the_layers(tmp_path):
    page, _ = write(tmp_path, samples.entries(1))
    ramp = page.json("head")["ramp"]
    assert ramp[0] == "rgb(0 0 0 / 0.00)"
    r, g, b = colorize(np.ones((1, 1)))[0, 0]
    assert ramp[-1] == f"rgb({r} {g} {b} / 1.00)"


def test_an_image_costs_little_beside_its_pictures(tmp_path):
    def overhead(count):
        _, path = write(tmp_path, samples.entries(count))
        return len(URI.sub("", path.read_text(encoding="utf-8")))

    assert (overhead(110) - overhead(10)) / 100 < 1500


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_leaves_the_old_file(tmp_path, value):
    entries = samples.entries(2)
    _, path = write(tmp_path, entries)
    before = path.read_bytes()
    head = samples.head(entries)
    entries[1]["artifact_share"] = value
    with pytest.raises(ValueError, match="JSON"):
        write_page(path, head, entries)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_images_with_one_id(tmp_path):
    entries = [samples.entry(1), samples.entry(1)]
    with pytest.raises(ValueError, match="id of its own"):
        write_page(tmp_path / "x.html", samples.head(entries), entries)


def test_undecodable_names_are_spelt_out(tmp_path):
    entry = samples.entry(1, "caf\udce9.png")
    page, _ = write(tmp_path, [entry], failures=[{"name": "caf\udce9.jpg", "reason": "broken"}])
    assert "caf\\udce9.jpg" in "".join(page.texts)
    assert page.json("index")[0]["name"] == "caf\\udce9.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\nb\x00\ufeff", "a\\u000ab\\u0000\\ufeff"),
        ("\ud83d", "\\ud83d"),
        ("Löwe 狮子 أسد 👩\u200d💻 <b>&amp;", "Löwe 狮子 أسد 👩\u200d💻 <b>&amp;"),
    ],
)
def test_invisible_characters_are_spelt_out(text, shown):
    assert visible(text) == shown


def test_ids_are_unique_and_labels_have_their_inputs(tmp_path):
    page, _ = write(tmp_path, samples.entries(4))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["for"] for a in page.named("label") if "for" in a} <= set(ids)
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)


# the summary as texts


def test_figures_of_labelled_and_unlabelled_images():
    entries = samples.entries(9)
    named = dict(summary_figures(samples.head(entries)["summary"]))
    assert named["Images"] == "9"
    assert int(named["Called fake"]) == sum(e["is_fake"] for e in entries)
    right = [e["correct"] for e in entries if e["label"] == 1]
    wrong = [e["correct"] for e in entries if e["label"] == 0]
    expected = (sum(right) / len(right) + sum(wrong) / len(wrong)) / 2
    assert named["Balanced accuracy"] == f"{expected:.4f}"
    unlabelled = samples.head(samples.entries(9, labelled=False))["summary"]
    assert list(dict(summary_figures(unlabelled))) == ["Images", "Called fake", "Called real"]


def test_figures_say_how_many_have_labels():
    entries = [*samples.entries(3), samples.entry(7, labelled=False)]
    assert ("With a label", "3") in summary_figures(samples.head(entries)["summary"])


def test_tables_hold_the_counts():
    entries = samples.entries(12)
    made = {t.caption.partition(" ")[0].rstrip(";"): t for t in summary_tables(
        samples.head(entries)["summary"], {"relevance": "Relevance map"}
    )}  # fmt: skip
    pairs = [(e["label"], e["is_fake"]) for e in entries]
    fake, real = made["Verdicts"].rows
    assert [int(cell.split()[0]) for cell in fake[1:]] == [
        pairs.count((1, True)),
        pairs.count((1, False)),
    ]
    assert [int(cell.split()[0]) for cell in real[1:]] == [
        pairs.count((0, True)),
        pairs.count((0, False)),
    ]
    assert made["Generators"].rows[0][0] == "real"
    assert made["Maps"].rows[0][0] == "Relevance map"
    assert made["Maps"].rows[1][0] == "sliding_patch"  # a map that nobody named
    count = sum(bool(e["scores"]) for e in entries)
    assert made["Maps"].rows[0][1:3] == (str(count), "0.5000")
    for table in made.values():
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_tables_leave_out_what_nobody_knows():
    made = summary_tables(samples.head(samples.entries(9, labelled=False))["summary"], {})
    (categories,) = made  # no labels: no verdicts, generators or scores
    assert categories.header == (
        "Category",
        "annotated in images",
        "predicted in images",
        "regions predicted",
    )
    assert NOTHING not in {cell for row in categories.rows for cell in row}
    assert summary_tables(samples.head([])["summary"], {}) == []
