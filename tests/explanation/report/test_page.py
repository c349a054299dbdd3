"""What a report's HTML file holds, without a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
import report_samples as samples
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.explanation.report.charts import draw_charts
from artifactnet.explanation.report.page import embed, prose, visible, write_page
from artifactnet.explanation.report.tables import NOTHING, summary_figures, summary_tables


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


def test_texts_from_data_never_become_markup(tmp_path):
    entries = [samples.entry(k, name) for k, name in enumerate(samples.HOSTILE)]
    bad = samples.HOSTILE[0]
    for entry, text in zip(entries, samples.HOSTILE, strict=True):
        entry["generator"], entry["warnings"] = samples.HOSTILE[1], [bad, text]
        entry["explanation"] = dict.fromkeys(("description", "regions", "issues"), text)
    method = {"name": bad, "label": bad, "scale": "minmax", "description": bad}
    entries[0]["layers"][f"heat:{bad}"] = entries[0]["thumb"]
    page, path = write(
        tmp_path,
        entries,
        title=samples.HOSTILE[1],
        notices=[bad],
        warnings=[samples.HOSTILE[2]],
        methods=[*samples.METHODS, method],
        charts=[{"name": "x", "title": bad, "description": bad, "svg": samples.CHART}],
        failures=[{"name": name, "reason": bad} for name in samples.HOSTILE],
    )
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    # of its own images the page has two, in the view of one image, and no source for them
    assert [attrs.get("src") for attrs in page.named("img")] == [None, None]
    scripts = page.named("script")
    assert len(scripts) == 2 * len(entries) + 3
    assert [attrs for attrs in scripts if attrs.get("type") != "application/json"] == [{}]
    for tag, attributes, text in page.raw:
        if attributes.get("type") == "application/json":
            assert tag == "script"
            assert not set("<>&\u2028\u2029") & set(text)
            assert text.isascii()
    raw = path.read_text(encoding="utf-8")
    for text in ("<img src=x", "<script>alert", "<!--<script>", "\u2028", "\u202e"):
        assert text not in raw
    # they read as they are
    text = "".join(page.texts)
    for name in samples.SHOWN:
        assert name in text  # in the list of failures
    assert [e["name"] for e in page.json("index")] == samples.SHOWN
    assert page.json("head")["generators"] == [samples.HOSTILE[1]]
    for entry in entries:
        found = page.json(f"words-{entry['id']}")
        assert set(found.values()) == {prose(entry["explanation"]["issues"])}


@pytest.mark.parametrize("text", [*samples.HOSTILE, "\udcff", "\x00", "é😀"])
def test_embedded_json_is_the_same_data(text):
    data = {text: [text, None, 1.5, True]}
    assert json.loads(embed(data)) == data


def test_index_and_layers_are_the_entries(tmp_path):
    entries = samples.entries(6)
    page, _ = write(tmp_path, entries)
    keys = [layer["key"] for layer in page.json("head")["layers"]]
    for entry, found in zip(entries, page.json("index"), strict=True):
        assert page.json(f"layers-{entry['id']}") == entry["layers"]
        assert found.pop("missing") == [key for key in keys if key not in entry["layers"]]
        assert found == {k: v for k, v in entry.items() if k != "layers"}
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["for"] for a in page.named("label") if "for" in a} <= set(ids)
    assert {a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a} <= set(ids)


def test_nothing_is_fetched_and_only_this_script_and_style_have_an_effect(tmp_path):
    page, path = write(tmp_path, samples.entries(2))
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
    raw = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"' <]*", raw)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in raw
    assert "@import" not in raw


def test_figures_and_tables_hold_the_counts():
    entries = samples.entries(12)
    summary = samples.head(entries)["summary"]
    tables = summary_tables(summary, {"relevance": "Relevance map"})
    made = {table.caption.partition(" ")[0].rstrip(";"): table for table in tables}
    pairs = [(e["label"], e["is_fake"]) for e in entries]
    for row, label in zip(made["Verdicts"].rows, (1, 0), strict=True):
        counts = [pairs.count((label, called)) for called in (True, False)]
        assert [int(cell.split()[0]) for cell in row[1:]] == counts
    assert made["Generators"].rows[0][0] == "real"
    # a map that nobody named has its own name
    assert [row[0] for row in made["Maps"].rows[:2]] == ["Relevance map", "sliding_patch"]
    count = sum(bool(e["scores"]) for e in entries)
    assert made["Maps"].rows[0][1:3] == (str(count), "0.5000")
    for table in made.values():
        assert {len(row) for row in table.rows} == {len(table.header)}
    named = dict(summary_figures(summary))
    assert (named["Images"], int(named["Called fake"])) == (
        "12",
        sum(e["is_fake"] for e in entries),
    )
    right, wrong = ([e["correct"] for e in entries if e["label"] == label] for label in (1, 0))
    expected = (sum(right) / len(right) + sum(wrong) / len(wrong)) / 2
    assert named["Balanced accuracy"] == f"{expected:.4f}"


def test_uncertain_verdicts_have_a_column_a_choice_and_their_limits(tmp_path):
    entries = samples.entries(12)
    for entry in entries:
        if 0.3 <= entry["probability"] < 0.7:
            entry |= {"verdict": "uncertain", "correct": None}
    unsure = sum(e["verdict"] == "uncertain" for e in entries)
    assert unsure > 0
    model = samples.head([])["model"] | {"limits": [0.3, 0.7]}
    head = samples.head(entries, model=model)
    assert dict(summary_figures(head["summary"]))["Uncertain"] == str(unsure)
    tables = {t.caption.partition(" ")[0]: t for t in summary_tables(head["summary"], {})}
    verdicts = tables["Verdicts"]
    assert verdicts.header[1:] == ("called fake", "uncertain", "called real")
    for row, label in zip(verdicts.rows, (1, 0), strict=True):
        kinds = [e["verdict"] for e in entries if e["label"] == label]
        counts = [kinds.count(kind) for kind in ("fake", "uncertain", "real")]
        assert [int(cell.split()[0]) for cell in row[1:]] == counts
    assert "uncertain" in tables["Generators"].header
    path = tmp_path / "page.html"
    write_page(path, head, entries)
    text = path.read_text(encoding="utf-8")
    assert '<option value="uncertain">Uncertain</option>' in text
    assert "fake from a probability of 0.7, real below 0.3 and uncertain between" in text
    write_page(path, samples.head(samples.entries(3)), samples.entries(3))
    text = path.read_text(encoding="utf-8")
    assert '<option value="uncertain">' not in text
    assert "called fake from a probability of 0.5." in text


def test_a_judge_of_plausibility_calls_nothing_fake(tmp_path):
    entries = samples.entries(12)
    head = samples.head(entries)
    head["summary"]["judges"] = "plausibility"
    charts, _ = draw_charts(head["summary"])
    drawn = [{k: getattr(c, k) for k in ("name", "title", "description", "svg")} for c in charts]
    path = tmp_path / "page.html"
    write_page(path, head | {"charts": drawn}, entries)
    text = path.read_text(encoding="utf-8")
    assert '<option value="fake">Called implausible</option>' in text
    assert "An image is called implausible from an implausibility (1 - score) of 0.5." in text
    assert '"called":"called implausible from 0.5"' in text.replace('": "', '":"')
    assert "Images by implausibility." in text
    found = dict(summary_figures(head["summary"]))
    assert int(found["Called implausible"]) == sum(e["is_fake"] for e in entries)
    for words in ("alled fake", "alled real", "P(fake)", "robability of being fake"):
        assert words not in text, words


def test_what_nobody_knows_is_left_out():
    summary = samples.head(samples.entries(9, labelled=False))["summary"]
    assert list(dict(summary_figures(summary))) == ["Images", "Called fake", "Called real"]
    (categories,) = summary_tables(summary, {})  # no labels: no verdicts, generators or scores
    assert len(categories.header) == 4
    assert NOTHING not in {cell for row in categories.rows for cell in row}
    assert summary_tables(samples.head([])["summary"], {}) == []


@pytest.mark.parametrize("labelled", [False, True])
def test_choices_are_those_that_exist(tmp_path, labelled):
    page, _ = write(tmp_path, samples.entries(8, labelled=labelled))
    # unlabelled images are never called wrong
    assert ("wrong" in [a["value"] for a in page.named("option")]) == labelled
    radios = [a for a in page.named("input") if a["type"] == "radio"]
    heats = [f"heat:{m['name']}" for m in samples.METHODS]
    layers = ["image", *heats, "mask", *(["annotation"] if labelled else [])]
    assert [a["value"] for a in radios] == layers
    assert [a["value"] for a in radios if "checked" in a] == heats[:1]


def test_data_that_cannot_be_written_leaves_the_old_file(tmp_path):
    entries = samples.entries(2)
    _, path = write(tmp_path, entries)
    before = path.read_bytes()
    head = samples.head(entries)
    for value in (float("nan"), float("inf")):
        entries[1]["artifact_share"] = value
        with pytest.raises(ValueError, match="JSON"):
            write_page(path, head, entries)
    with pytest.raises(ValueError, match="id"):
        write_page(path, head, [samples.entry(1), samples.entry(1)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\nb\x00\ufeff", "a\\u000ab\\u0000\\ufeff"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("Löwe 狮子 أسد 👩\u200d💻 <b>&amp;", "Löwe 狮子 أسد 👩\u200d💻 <b>&amp;"),
    ],
)
def test_invisible_characters_are_spelled_out(tmp_path, text, shown):
    assert visible(text) == shown
    page, _ = write(tmp_path, [samples.entry(1, text)], failures=[{"name": text, "reason": "x"}])
    assert shown in "".join(page.texts)
    assert page.json("index")[0]["name"] == shown


@given(st.text())
def test_prose_holds_nothing_invisible_and_is_stable(text):
    shown = prose(text)
    assert prose(shown) == shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)
    # line breaks stay, whatever they were, and the rest is spelled out
    assert prose("\n\na\r\nb\rc\u2028d\x0be\n\nf\n") == "a\nb\nc\nd\ne\n\nf"
    assert (prose("\u202egnp\x00\tb"), prose("\n")) == ("\\u202egnp\\u0000   b", "")
