"""Asking all models: each image read once, nothing lost or changed by a kill, truth damaged too."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import stub_models
from PIL import Image
from stub_models import save_manifest
from tiny_models import tiny

from artifactnet.data.damage import crop_window, parse_level
from artifactnet.data.test_sets.read import read_test_set
from artifactnet.experiments import judging
from artifactnet.experiments.evaluated_models import (
    EvaluatedModel,
    Judgment,
    open_model,
    parse_models,
)
from artifactnet.experiments.judging import Conditions, damage_truth, judge_level
from artifactnet.inference.inputs import Failure
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError, Region

LEVELS = ("original", "jpeg30", "crop", "half")


class Recorder(EvaluatedModel):
    """Says what it is told, and remembers what it was shown."""

    def __init__(self, name, answer=None, localization=None, version="1", batch_size=2):
        self.name, self.version, self.batch_size = name, version, batch_size
        self.localization, self.about = localization, {}
        self.answer = answer or (lambda image: Judgment(True, 0.75))
        self.shown = []

    def judge(self, images, where):
        for image in images:
            self.shown.append(image)
            yield self.answer(image)


@pytest.fixture
def images(tmp_path):
    return read_test_set("toy", save_manifest(tmp_path / "data", 9))


@pytest.fixture
def loads(monkeypatch):
    """Keys of images in the order in which they are decoded."""
    found = []
    load = judging.TestSet.load
    monkeypatch.setattr(
        judging.TestSet, "load", lambda self, k: found.append(self.keys[k]) or load(self, k)
    )
    return found


@pytest.fixture
def saved_model(tmp_path):
    """A detector whose last digits depend on its batches, if those of any do."""
    save_checkpoint(tiny(), tmp_path / "tiny.safetensors")
    return f"{tmp_path / 'tiny.safetensors'}"


def opened(*texts):
    return [open_model(spec, "cpu") for spec in parse_models(texts)]


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_read_once_and_all_models_see_the_same(images, loads, tmp_path, workers):
    models = [Recorder(name) for name in "abc"]
    found = judge_level(
        images, parse_level("jpeg30"), models, tmp_path / "out", Conditions(workers=workers)
    )
    assert sorted(loads) == sorted(images.keys)
    assert list(found) == ["a", "b", "c"]
    for model in models:
        assert [image.key for image in model.shown] == list(images.keys)
        for one, other in zip(model.shown, models[0].shown, strict=True):
            assert one.pixels is other.pixels
    written = (tmp_path / "out" / "b" / "toy" / "jpeg30.jsonl").read_text()
    lines = [json.loads(text) for text in written.splitlines()]
    assert lines == found["b"]
    assert [line["path"] for line in lines] == list(images.keys)
    assert {line["probability"] for line in lines} == {0.75}


def test_nothing_is_asked_twice(images, loads, tmp_path):
    def judge(model):
        return judge_level(images, parse_level("original"), [model], tmp_path)

    first = judge(Recorder("a"))
    before = files_of(tmp_path)
    del loads[:]
    again = Recorder("a")
    assert judge(again) == first
    assert (again.shown, loads) == ([], [])
    assert files_of(tmp_path) == before
    judge_level(images, parse_level("original"), [Recorder("a"), Recorder("b")], tmp_path)
    assert sorted(loads) == sorted(images.keys)  # for the new one alone


def test_a_changed_image_is_asked_about_again(images, tmp_path):
    judge_level(images, parse_level("original"), [Recorder("a")], tmp_path / "out")
    os.utime(images.records[4].path, (1, 1))
    again = Recorder("a")
    judge_level(images, parse_level("original"), [again], tmp_path / "out")
    assert [image.key for image in again.shown] == [images.keys[4]]


def test_a_changed_annotation_is_compared_again(images, tmp_path):
    """Boxes of a manifest, and a mask in a file of its own."""

    def judge(test_set, out):
        model = Recorder("a", lambda image: Judgment(True, 1.0, [(0, 0, 50, 44)]), "boxes")
        (lines,) = judge_level(test_set, parse_level("original"), [model], tmp_path / out).values()
        return [image.key for image in model.shown], {one["path"]: one["areas"] for one in lines}

    before = judge(images, "boxes")[1]
    rows = [json.loads(text) for text in images.root.read_text().splitlines()]
    rows[5]["regions"][0]["bbox"] = [0, 0, 50, 44]
    images.root.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown, after = judge(read_test_set("toy", images.root), "boxes")
    assert shown == ["sdxl/2"]
    assert (before["sdxl/2"], after["sdxl/2"]) == ([40 * 24, 50 * 44], [50 * 44, 50 * 44])

    root = tmp_path / "folder"
    for name in ("real/0.png", "fake/0.png", "fake/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 80, 3), 9, np.uint8)).save(root / name)
    mask = np.zeros((60, 80), np.uint8)
    (root / "masks").mkdir()
    for place in (30, 20):
        mask[place:44, 10:50] = 255
        Image.fromarray(mask).save(root / "masks" / "1.png")
        os.utime(root / "masks" / "1.png", (place, place))
        shown, after = judge(read_test_set("mine", root), "folder")
        assert after["fake/fake/1"][0] == 40 * (44 - place)
    assert shown == ["fake/fake/1"]


def test_answers_about_other_images_are_kept(images, tmp_path):
    judge_level(images, parse_level("half"), [Recorder("a")], tmp_path)
    few, again = Recorder("a"), Recorder("a")
    found = judge_level(images.select([3, 4]), parse_level("half"), [few], tmp_path)
    assert [line["path"] for line in found["a"]] == list(images.keys[3:5])
    path = tmp_path / "a" / "toy" / "half.jsonl"
    assert len(path.read_text().splitlines()) == len(images.keys)
    whole = judge_level(images, parse_level("half"), [again], tmp_path)
    assert [line["path"] for line in whole["a"]] == list(images.keys)
    assert few.shown == again.shown == []


def test_an_interrupted_experiment_says_that_it_goes_on(images, tmp_path):
    def answer(image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        judge_level(images, parse_level("half"), [Recorder("a", answer)], tmp_path)


@pytest.mark.parametrize(
    ("other", "conditions", "level", "message"),
    [
        (Recorder("a", version="2"), Conditions(), "crop", "model='1', now '2'"),
        (Recorder("a"), Conditions(seed=1), "crop", "seed=0, now 1"),
        (Recorder("a"), Conditions(recode=True), "crop", "recode=False, now True"),
    ],
)
def test_answers_made_otherwise_are_not_mixed(images, tmp_path, other, conditions, level, message):
    judge_level(images, parse_level(level), [Recorder("a")], tmp_path)
    with pytest.raises(ArtifactNetError, match=f"{message}.*choose another --out"):
        judge_level(images, parse_level(level), [other], tmp_path, conditions)
    assert other.shown == []
    if conditions.seed:  # which only places crops
        judge_level(images, parse_level("half"), [Recorder("a")], tmp_path)
        judge_level(images, parse_level("half"), [other], tmp_path, conditions)


@pytest.mark.parametrize("die_after", [1, 17, 40, 71])
def test_a_killed_experiment_ends_as_one_that_was_not(
    images, saved_model, tmp_path, monkeypatch, die_after
):
    """The process is ended by ``os._exit`` within a model, at whatever image of whatever level."""

    def run(folder):
        models = opened(saved_model, "mortal=stub_models:mortal")
        return [judge_level(images, parse_level(name), models, folder) for name in LEVELS]

    monkeypatch.setattr(stub_models, "SHAPES", [])
    whole = run(tmp_path / "whole")
    assert len(stub_models.SHAPES) == len(LEVELS) * len(images.keys)
    del stub_models.SHAPES[:]
    child = os.fork()
    if child == 0:
        stub_models.DIE_AFTER = die_after
        run(tmp_path / "killed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list((tmp_path / "killed").rglob("*.jsonl")), "it was killed too early"
    assert run(tmp_path / "killed") == whole
    answered = (die_after - 1) // 8 * 8  # whole batches before the one in which it died
    assert len(stub_models.SHAPES) <= len(LEVELS) * len(images.keys) - min(answered, 16)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_half_a_line_is_written_anew(images, tmp_path):
    whole = judge_level(images, parse_level("half"), [Recorder("a")], tmp_path)
    path = tmp_path / "a" / "toy" / "half.jsonl"
    expected = path.read_bytes()
    path.write_bytes(expected[: len(expected) // 2])
    again = Recorder("a")
    assert judge_level(images, parse_level("half"), [again], tmp_path) == whole
    assert 0 < len(again.shown) < len(images.keys)
    assert path.read_bytes() == expected


def test_images_without_a_judgment(images, tmp_path):
    """Undecodable, too small for a crop, and what one model cannot judge; all asked again."""
    (tmp_path / "data" / "0_0.png").write_bytes(b"no image")
    save = np.full((39, 80, 3), 9, np.uint8)
    Image.fromarray(save).save(tmp_path / "data" / "1_0.png")

    def answer(image):
        return Failure(image.key, "too hard") if image.key == "sdxl/2" else Judgment(False, 0.1)

    models = [Recorder("a", answer), Recorder("b")]
    found = judge_level(images, parse_level("crop"), models, tmp_path / "out")
    problems = {
        name: {x["path"]: x["problem"] for x in lines if x["problem"]}
        for name, lines in found.items()
    }
    assert list(problems["a"]) == ["real/0", "real/1", "sdxl/2"]
    assert "not an image that Pillow can read" in problems["b"]["real/0"]
    assert "too small: at least 32 a side" in problems["b"]["real/1"]
    assert problems["a"]["sdxl/2"] == "too hard"
    failed = next(line for line in found["a"] if line["path"] == "sdxl/2")
    assert (failed["is_fake"], failed["probability"]) == (None, None)
    healed = Recorder("a")
    again = judge_level(images, parse_level("crop"), [healed], tmp_path / "out")
    assert [image.key for image in healed.shown] == ["sdxl/2"]
    assert sum(line["problem"] is not None for line in again["a"]) == 2


def test_recoded_images_are_jpegs_first(images, tmp_path):
    plain, recoded = Recorder("a"), Recorder("a")
    judge_level(images, parse_level("half"), [plain], tmp_path / "1")
    judge_level(images, parse_level("half"), [recoded], tmp_path / "2", Conditions(recode=True))
    expected = judging.damage_pixels(
        judging.as_jpeg(images.load(0).image, 95), parse_level("half"), 0, ""
    )
    np.testing.assert_array_equal(recoded.shown[0].pixels, expected)
    assert (plain.shown[0].pixels != expected).any()


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("localization", ["boxes", "map"])
def test_areas_against_counting_pixels(images, tmp_path, name, localization):
    """The model's own region is a fixed rectangle of the damaged image."""
    level = parse_level(name)

    def region(image):
        mask = np.zeros(image.pixels.shape[:2], bool)
        mask[4:26, 6:40] = True
        boxes = [(6, 4, 40, 26)] if localization == "boxes" else None
        return Judgment(True, 0.9, boxes, mask if boxes is None else None)

    model = Recorder("a", region, localization)
    found = judge_level(images, level, [model], tmp_path / "out", Conditions(seed=3))
    compared = 0
    for k, line in enumerate(found["a"]):
        sample = images.load(k)
        if sample.record.label == 0:
            assert (line["truth"], line["areas"]) == ("none", None)
            continue
        height, width = sample.image.shape[:2]
        fine = 4  # each pixel in 4x4 parts, so that halved boxes have whole corners
        truth = np.zeros((fine * height, fine * width), bool)
        truth[fine * 20 : fine * 44, fine * 10 : fine * 50] = True
        if name == "crop":
            window = crop_window((height, width), 3, images.keys[k])
            rows, columns = (slice(fine * s.start, fine * s.stop) for s in window.slices)
            truth = truth[rows, columns]
        if name == "half":
            truth = truth[::2, ::2]
        mine = (
            np.kron(region(model.shown[k]).mask, np.ones((fine, fine), bool))
            if (localization == "map")
            else np.zeros_like(truth)
        )
        mine[fine * 4 : fine * 26, fine * 6 : fine * 40] = True
        counted = [np.count_nonzero(both) / fine**2 for both in (mine & truth, mine | truth)]
        assert line["areas"] == pytest.approx(counted)
        compared += 1
    assert compared == 9


def test_real_verdicts_and_failures_have_no_boxes(images, tmp_path):
    def answer(image):
        if image.key == "sdxl/0":
            return Failure(image.key, "too hard")
        return Judgment(image.key != "sdxl/1", 0.5, [(10, 20, 50, 44)])

    found = judge_level(images, parse_level("original"), [Recorder("a", answer, "boxes")], tmp_path)
    areas = {line["path"]: line["areas"] for line in found["a"] if line["areas"]}
    assert areas["sdxl/0"] == areas["sdxl/1"] == [0, 40 * 24]
    assert areas["sdxl/2"] == [40 * 24, 40 * 24]


def test_truth_that_a_crop_cuts_off(images):
    """A box in the corner that the window does not reach is lost; none at all was never there."""
    sample = images.load(1)
    level = parse_level("crop")
    window = crop_window(sample.image.shape[:2], 0, "a")
    assert window.left > 1
    corner = replace(sample, regions=(Region((0, 0, 1, 1), ""),))
    assert damage_truth(corner, level, 0, "a").lost
    assert not damage_truth(corner, parse_level("half"), 0, "a").lost
    empty = damage_truth(replace(sample, regions=(), mask=None), level, 0, "a")
    assert (empty.boxes, empty.lost) == ((), False)
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    mask[0, 0] = 1
    assert damage_truth(replace(sample, regions=None, mask=mask), level, 0, "a").lost


def test_regions_come_before_masks_and_masks_become_boxes(images):
    sample = images.load(1)
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    mask[3:7, 5:15] = 1
    both = damage_truth(replace(sample, mask=mask), parse_level("original"), 0, "a")
    assert both.boxes == ((10, 20, 50, 44),)
    alone = damage_truth(replace(sample, mask=mask, regions=None), parse_level("original"), 0, "a")
    said = Judgment(True, 1.0, [(5, 3, 15, 7)])
    assert alone.areas(said, mask.shape, "boxes") == [40, 40]
    assert alone.areas(Judgment(False, 0.0, None, mask > 0), mask.shape, "map") == [40, 40]


def test_a_mask_counts_where_there_are_no_boxes(images):
    sample = images.load(1)
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    mask[10:20, 30:50] = 1
    truth = damage_truth(replace(sample, regions=(), mask=mask), parse_level("original"), 0, "a")
    assert truth.areas(Judgment(True, 1.0, [(30, 10, 50, 20)]), mask.shape, "boxes") == [200, 200]


def test_an_error_of_a_model_is_not_taken_for_one_of_the_answers(images, tmp_path):
    def broken(image):
        raise FileNotFoundError("weights.pth")

    with pytest.raises(FileNotFoundError, match="weights.pth"):
        judge_level(images, parse_level("half"), [Recorder("a", broken)], tmp_path)
    (tmp_path / "b").write_bytes(b"no folder")
    with pytest.raises(ArtifactNetError, match="half.jsonl: answers cannot be written: "):
        judge_level(images, parse_level("half"), [Recorder("b")], tmp_path)


def test_maps_are_not_computed_where_nothing_is_known(images, tmp_path):
    class Asked(Recorder):
        def judge(self, images, where):
            self.where = where
            return super().judge(images, where)

    model = Asked("a", localization="map")
    judge_level(images, parse_level("half"), [model], tmp_path / "1", where=False)
    assert model.where is False
    reals = images.select([k for k, r in enumerate(images.records) if r.label == 0])
    judge_level(reals, parse_level("half"), [model], tmp_path / "2")
    assert model.where is False
    judge_level(images, parse_level("half"), [model], tmp_path / "3")
    assert model.where is True


def test_a_second_process_is_refused(images, tmp_path):
    model = Recorder("a")

    def answer(image):
        with pytest.raises(ArtifactNetError, match="another process writes"):
            judge_level(images, parse_level("half"), [Recorder("a")], tmp_path)
        return Judgment(True, 1.0)

    model.answer = answer
    judge_level(images, parse_level("half"), [model], tmp_path)


def test_models_without_answers_at_a_level_are_left_out(images, tmp_path):
    path = tmp_path / "theirs.jsonl"
    rows = [{"image": r.location, "level": "half", "is_fake": True} for r in images.records[:3]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (theirs,) = opened(str(path))
    assert judge_level(images, parse_level("crop"), [theirs], tmp_path / "out") == {}
    found = judge_level(images, parse_level("half"), [theirs], tmp_path / "out")["theirs"]
    assert [line["is_fake"] for line in found] == [True] * 3 + [None] * 15
    assert found[3]["problem"] == "the file has no prediction of it"
