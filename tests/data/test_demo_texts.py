"""Texts of the demo data: they say what was done to each image, and nothing else changes."""

import csv
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from annotated_files import load_manifest

from artifactnet.config import DataConfig
from artifactnet.data.converters.demo import convert_demo_data
from artifactnet.data.sources import captions, demo
from artifactnet.metrics.claims import ClaimMetric
from artifactnet.taxonomy import BY_LABEL, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.text.chain_of_thought import parse_cot
from artifactnet.vlm.text.claims import claims_of
from artifactnet.vlm.text.facts import UNTOUCHED
from artifactnet.vlm.text.reading import read_facts
from artifactnet.vlm.text.wordings import HELD_OUT, TRAIN

GRID = [
    ["upper left", "top", "upper right"],
    ["left", "center", "right"],
    ["lower left", "bottom", "lower right"],
]


def build(texts=True, **changes):
    sizes = {"demo_train": 24, "demo_val": 8, "demo_test": 8, "demo_size": 96}
    return demo.build_demo_splits(DataConfig(**sizes, demo_texts=texts, **changes), 0)


@pytest.fixture(scope="module")
def splits():
    return build()


def samples(splits):
    return [
        (name, source.load(k))
        for name, source in splits.items()
        for k in range(len(source.records))
    ]


def bit(label: str) -> int:
    return UNCATEGORIZED_BIT if label == UNCATEGORIZED else BY_LABEL[label].bit


def test_every_image_has_a_text_of_what_was_done_to_it(splits):
    seen = Counter()
    for _, sample in samples(splits):
        facts = read_facts(sample.text)
        if sample.record.label == 0:
            assert facts == UNTOUCHED
            continue
        assert sum(bit(finding.label) for finding in facts.findings) == sample.record.categories
        shares = []
        for finding in facts.findings:
            marked = (sample.mask & bit(finding.label)) > 0
            shares.append(marked.mean())
            assert finding.size == sum(shares[-1] >= bound for bound in (0.07, 0.125))
            cells = {
                GRID[row][column]: marked[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                for row in range(3)
                for column in range(3)
            }
            held = {name: cell.sum() / marked.sum() for name, cell in cells.items()}
            assert set(finding.places) == {name for name, part in held.items() if part >= 0.25}
            seen[finding.label] += 1
        assert shares == sorted(shares, reverse=True)
        assert facts.plausibility == sum(sample.score >= bound for bound in (0.25, 0.5, 0.75))
    assert set(seen) == {*BY_LABEL, UNCATEGORIZED}


def test_strengths_are_those_of_the_pixels(splits):
    """JPEG blurs what the twins differ by, so only differences far from the bounds are judged."""
    source, judged = splits["train"], Counter()
    for index in range(1, len(source.records), 2):
        real, fake = source.load(index - 1), source.load(index)
        difference = np.abs(real.image.astype(float) - fake.image).mean(axis=2)
        for finding in read_facts(fake.text).findings:
            change = difference[(fake.mask & bit(finding.label)) > 0].mean()
            if min(abs(change - 30), abs(change - 50)) > 6:
                assert finding.strength == sum(change >= bound for bound in (30, 50))
                judged[finding.strength] += 1
    assert min(judged[k] for k in range(3)) >= 3


def test_the_test_split_has_words_of_its_own(splits):
    for name, sample in samples(splits):
        words, other = (HELD_OUT, TRAIN) if name == "test" else (TRAIN, HELD_OUT)
        cot = parse_cot(sample.text)
        verdict = cot.issues.split("\n")[-1]
        assert verdict in [v for degree in words.verdicts for v in degree]
        for label, sentences in other.issues.items():
            assert not any(sentence in cot.issues for sentence in sentences), label
        if sample.record.label == 0:
            assert cot.regions in words.no_region


def test_descriptions_hold_a_caption_of_the_photograph(splits):
    scenes = {f"{p.package}/{p.file}": p.scene for s in splits for p in demo.photos_of_split(s)}
    for _, sample in samples(splits):
        scene = scenes[sample.record.location.split("#")[0]]
        description = parse_cot(sample.text).description
        assert any(caption in description for caption in captions.read_captions()[scene])


def test_texts_change_nothing_else(splits):
    for name, source in build(texts=False).items():
        for index, record in enumerate(source.records):
            assert record == splits[name].records[index]
            assert source.encoded(index) == splits[name].encoded(index)
            assert source.load(index).text is None
            assert source.load(index).score == splits[name].load(index).score


def test_texts_are_reproducible_and_depend_on_the_seed(splits):
    texts = [sample.text for _, sample in samples(splits)]
    assert [sample.text for _, sample in samples(build())] == texts
    assert len(set(texts)) == len(texts)
    other = [sample.text for _, sample in samples(build(demo_seed=1))]
    assert not set(texts) & set(other)


def test_an_untouched_twin_of_an_empty_mask(monkeypatch):
    """A crop in which no repainted pixel is left shows nothing wrong."""
    crop = demo._repainted_crop
    monkeypatch.setattr(
        demo, "_repainted_crop", lambda *args: (*crop(*args)[:2], np.zeros((96, 96), np.uint8))
    )
    source = build(generators=["migan"])["train"]
    assert read_facts(source.load(1).text) == UNTOUCHED


def test_texts_travel_in_manifests(tmp_path):
    config = DataConfig(demo_train=4, demo_val=2, demo_test=2, demo_size=96, demo_texts=True)
    convert_demo_data(config, tmp_path)
    found = load_manifest(tmp_path / "demo.jsonl")
    for name, source in found.items():
        for index, text in enumerate(source.texts):
            assert read_facts(text) is not None
            assert source.load(index).text == text
        assert len(source.texts) == {"train": 8, "val": 4, "test": 4}[name]


def test_every_photograph_has_captions_that_stay_true_of_crops():
    known = captions.read_captions()
    splits = {s: {p.scene for p in demo.photos_of_split(s)} for s in ("train", "val", "test")}
    assert set(known) == set.union(*splits.values())
    assert min(len(set(several)) for several in known.values()) >= 2
    everything = [caption for several in known.values() for caption in several]
    assert len(set(everything)) == len(everything)
    for caption in everything:
        assert re.fullmatch(r"[A-Za-z][A-Za-z,' -]+[a-z]", caption), caption
        # crops are mirrored, and are no photographs any more once they were edited
        assert not re.search(r"\b(left|right|upper|lower|photo\w*)\b", caption), caption
        assert len(caption.split()) <= 13, caption


def test_captions_file_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "CAPTIONS", tmp_path / "captions.csv")
    captions.read_captions.cache_clear()
    with pytest.raises(ArtifactNetError, match=r"captions\.csv: cannot be read"):
        captions.read_captions()
    captions.read_captions.cache_clear()


def test_captions_file_has_one_caption_a_line():
    with open(captions.CAPTIONS, newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["name", "caption"]
    assert {len(row) for row in rows} == {2}


@pytest.mark.slow
def test_answers_that_look_at_no_image_score_what_the_documentation_says():
    splits = demo.build_demo_splits(DataConfig(demo_texts=True), 0)
    facts = {
        name: [read_facts(splits[name].load(k).text) for k in range(1, 2 * pairs, 2)]
        for name, pairs in (("train", 400), ("test", 120))
    }
    metric, rng = ClaimMetric(), random.Random(0)
    for known in facts["test"]:
        said = [claims_of(rng.choice(facts["train"])) for _ in range(100)]
        times = len(said)
        main = known.findings[0].places
        metric.update(said, [claims_of(known)] * times, [main] * times, [True] * times)
    page = (Path(__file__).parents[2] / "docs" / "mllm.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `([a-z ]+)` \|[^|]+\|[^|]+\| (0\.\d+) \|$", page, re.MULTILINE))
    assert set(stated) == {"category", "all categories", "place", "repainted"}
    for name, value in metric.compute().items():
        if name in stated:
            assert value == pytest.approx(float(stated[name]), abs=0.02), name
