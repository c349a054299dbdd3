"""From a saved teacher to a taught student, whatever both do to their images."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_models import tiny

from artifactnet.config import ConfigError, HeatmapConfig, SegmentationConfig
from artifactnet.data.datamodule import DataModule
from artifactnet.data.geometry import fit_geometry
from artifactnet.data.transforms import Preprocess
from artifactnet.distillation import distill
from artifactnet.distillation.cache import shrink_maps
from artifactnet.distillation.distill import attach_teacher_labels, cache_folder, label_run
from artifactnet.distillation.teachers import DEFAULT_SIGMA, ModelTeacher, open_teacher
from artifactnet.evaluation.evaluate import evaluate_run
from artifactnet.inference.load import load_model
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import UNSEEN_SIGMA, Annotation, ArtifactNetError, Record

RECORD = Record("7", 0, "real", Annotation.NONE, "photos/7.png")
KINDS = ("heatmap", "softmax", "sigmoid", "attention")


def teacher_file(folder, kind="heatmap", **config):
    """A saved model whose map comes from one of its possible places, and varies strongly."""
    if kind == "heatmap":
        config["heatmap"] = HeatmapConfig(head="decoder", width=8, stride=8)
    elif kind != "attention":
        config["segmentation"] = SegmentationConfig(
            head="upernet", channels=8, auxiliary_channels=8, labels=kind
        )
    model = tiny(kwargs={"embed_dim": 24, "depth": 4, "num_heads": 2}, **config)
    strong = {"heatmap.maps.weight": 30, "heatmap.maps.bias": 0, ".qkv.weight": 30}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(next((by for end, by in strong.items() if name.endswith(end)), 1))
            if name.endswith("conv_seg.bias"):
                weight.sub_(2 if kind == "sigmoid" else -2 * (torch.arange(8) == 0))
    save_checkpoint(model, folder / "teacher.safetensors")
    return folder / "teacher.safetensors"


def photo(size, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rows, columns = (np.arange(s) * n // s for s, n in zip(size, (4, 5), strict=True))
    noise = rng.integers(0, 20, (*size, 3))
    return np.clip(coarse[np.ix_(rows, columns)] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop", "reflect"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_says_what_its_predictor_says(tmp_path, kind, resize):
    """Its own size, policy and normalisation, undone: maps are those of the original image."""
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    file = teacher_file(tmp_path, kind, resize=resize, mean=mean, std=std)
    teacher, predictor = ModelTeacher(file), load_model(file, "cpu")
    images = [photo((40, 71)), photo((90, 33), 1), photo((32, 48), 2)]
    answers = teacher.label([teacher.prepare(RECORD, image) for image in images])
    for image, answer in zip(images, answers, strict=True):
        wanted = predictor.predict(image)
        assert answer.heatmap.shape == image.shape[:2]
        assert np.ptp(answer.heatmap) > 1e-3
        np.testing.assert_allclose(answer.heatmap, wanted.heatmap, atol=1e-5)
        verdict = predictor.model.head(torch.from_numpy(answer.feature)[None])
        if kind in ("softmax", "sigmoid", "attention"):  # no other evidence in the verdict
            assert verdict.item() == pytest.approx(answer.logit, abs=1e-5)
        assert 1 / (1 + math.exp(-answer.logit)) == pytest.approx(wanted.probability, abs=1e-5)
        seen = np.zeros(image.shape[:2], bool)
        seen[fit_geometry(image.shape[:2], (32, 48), resize).source.slices] = True
        assert (answer.sigma[~seen] == UNSEEN_SIGMA).all()
        if kind == "heatmap":
            np.testing.assert_allclose(answer.sigma[seen], wanted.sigma[seen], rtol=1e-4)
            assert answer.score == pytest.approx(wanted.score, abs=1e-5)
        else:
            assert (answer.sigma[seen] == DEFAULT_SIGMA).all()
            assert math.isnan(answer.score)


def test_an_adaptive_mapper_teaches_what_it_says_to_the_predictor(tmp_path):
    """Each image is cut by its own shape, also among others in a batch."""
    heatmap = HeatmapConfig(head="mapper", width=16, heads=2, tile=32, max_tiles=4)
    depth = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    save_checkpoint(
        tiny(size=(64, 64), kwargs=depth, heatmap=heatmap), tmp_path / "teacher.safetensors"
    )
    teacher = open_teacher(tmp_path / "teacher.safetensors")
    predictor = load_model(tmp_path / "teacher.safetensors", "cpu")
    images = [photo(size, seed) for seed, size in enumerate([(40, 160), (90, 90), (30, 130)])]
    prepared = [teacher.prepare(RECORD, image) for image in images]
    assert [tuple(one.frame.shape[1:]) for one in prepared] == [(32, 128), (64, 64), (32, 128)]
    for image, answer in zip(images, teacher.label(prepared), strict=True):
        wanted = predictor.predict(image)
        np.testing.assert_allclose(answer.heatmap, wanted.heatmap, atol=1e-6)
        np.testing.assert_allclose(answer.sigma, wanted.sigma, rtol=1e-5)
        assert answer.score == pytest.approx(wanted.score, abs=1e-6)


def test_a_cropping_teacher_is_trusted_only_where_it_looked(tmp_path):
    """After shrinking, a cell that it saw in part weighs next to nothing under e^-sigma."""
    teacher = ModelTeacher(teacher_file(tmp_path, "attention", resize="crop"))
    [answer] = teacher.label([teacher.prepare(RECORD, photo((32, 101)))])
    small = shrink_maps(answer, 16)
    weight = np.exp(-small.sigma)
    assert weight[:, 8].min() > 0.3
    assert weight[:, [0, -1]].max() < 1e-6


def test_an_image_that_has_no_answer_is_named(tmp_path):
    teacher = ModelTeacher(teacher_file(tmp_path, "attention"))
    ready = [teacher.prepare(RECORD, photo(size)) for size in ((16, 48), (8, 48))]
    with pytest.raises(ArtifactNetError, match=r"photos/7\.png: an image of 48x8 .*too small"):
        teacher.label(ready)
    assert len(teacher.label(ready[:1])) == 1
    with torch.no_grad():
        teacher.model.head.bias.fill_(math.nan)
    with pytest.raises(ArtifactNetError, match=r"photos/7\.png: the teacher's answer is not a num"):
        teacher.label(ready[:1])


def test_other_weights_are_another_teacher(tmp_path):
    file = teacher_file(tmp_path, seed=0)
    first = ModelTeacher(file)
    assert ModelTeacher(file).identity == first.identity
    assert first.about["backbone"] == "vit_tiny_patch16_224"
    json.dumps([first.identity, first.about])
    teacher_file(tmp_path, seed=1)
    assert ModelTeacher(file).identity != first.identity


def test_what_stands_at_the_path_decides_who_teaches(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"distill\.teacher=.*x: no such"):
        open_teacher(tmp_path / "x")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: run\n")
    with pytest.raises(ArtifactNetError, match=r"a run without model\.safetensors; finish"):
        open_teacher(run)
    teacher_file(run).rename(run / "model.safetensors")
    assert open_teacher(run).about["name"] == "run"
    maps = tmp_path / "maps"
    maps.mkdir()
    np.save(maps / "a.npy", np.zeros((2, 2)))
    assert open_teacher(maps).identity["kind"] == "heatmaps"
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ArtifactNetError, match="not a readable safetensors file"):
        open_teacher(tmp_path / "text.safetensors")
    save_checkpoint(tiny("resnet18", kwargs={}), tmp_path / "m.safetensors")
    with pytest.raises(ArtifactNetError, match=r"=.*m\.safetensors: it has no heat"):
        open_teacher(tmp_path / "m.safetensors")


# --- a run ------------------------------------------------------------------------------------

STUDENT = (
    "model.backbone_kwargs.depth=4",
    "model.heatmap.head=decoder",
    "model.heatmap.width=8",
    "loss.alignment.weight=0",
    "distill.side=24",
    "data.demo_train=3",
    "data.demo_val=2",
    "data.demo_test=2",
)


def data_of(config) -> DataModule:
    preprocess = Preprocess((32, 32), "pad", [0.5] * 3, [0.5] * 3, 16)
    return DataModule(config.data, preprocess, config.seed)


def test_the_splits_of_a_run_are_taught_in_place(tiny, tmp_path, capsys):
    file = teacher_file(tmp_path, resize="crop", mean=[0.2] * 3, std=[0.1] * 3)
    config = tiny(*STUDENT, f"distill.teacher={file}")
    data = data_of(config)
    before = {name: source.records for name, source in data.splits.items()}
    attach_teacher_labels(data, config, "cpu")
    assert {name: source.records for name, source in data.splits.items()} == before
    assert cache_folder(config) == tmp_path / "runs" / ".cache" / "teachers"
    assert "14 images labelled" in capsys.readouterr().out
    predictor = load_model(file, "cpu")
    sample = data.splits["val"].load(3)
    wanted = predictor.predict(sample.image)
    assert sample.teacher.heatmap.shape == (48, 48)
    assert sample.teacher.score == pytest.approx(wanted.score, abs=1e-5)
    # stored at half the side: the map's own grid is coarser still
    np.testing.assert_allclose(sample.teacher.heatmap.mean(), wanted.heatmap.mean(), atol=2e-3)
    batch = next(iter(data.train_loader()))
    assert batch.teacher.heatmap.shape == batch.teacher.sigma.shape == (4, 32, 32)
    assert batch.teacher.score.isfinite().all()


@pytest.mark.parametrize("kind", ["heatmap", "attention"])
def test_weights_are_not_loaded_where_every_answer_is_known(
    tiny, tmp_path, monkeypatch, capsys, kind
):
    """By content too: what the demo source makes has no file whose stamp could be known."""
    file, cache = teacher_file(tmp_path, kind), tmp_path / "elsewhere"
    options = (*STUDENT, f"distill.teacher={file}", f"distill.cache={cache}")
    config = tiny(*options)
    first, again = data_of(config), data_of(config)
    assert label_run(config) == cache
    attach_teacher_labels(first, config, "cpu")

    def refuse(*_):
        raise AssertionError("the weights were asked for")

    monkeypatch.setattr("artifactnet.distillation.teachers.load_checkpoint", refuse)
    capsys.readouterr()
    attach_teacher_labels(again, config, "cpu")
    assert "0 images labelled, answers to 14" in capsys.readouterr().out
    assert again.summary["teacher"] == first.summary["teacher"]
    for split, source in again.splits.items():
        answers = [other.load(1).teacher for other in (source, first.splits[split])]
        np.testing.assert_array_equal(answers[0].heatmap, answers[1].heatmap)
    monkeypatch.setattr(distill, "is_main_process", lambda: False)
    attach_teacher_labels(data_of(config), config, "cpu")
    assert capsys.readouterr().out == ""  # only the main process speaks
    with pytest.raises(AssertionError, match="asked for"):
        label_run(tiny(*options, "data.demo_seed=1"))


@pytest.mark.parametrize(
    ("device", "rank", "wanted"),
    [("cuda", "1", "cuda:1"), ("cuda", None, "cuda"), ("cpu", "1", "cpu")],
)
def test_every_process_labels_on_its_own_gpu(tiny, tmp_path, monkeypatch, device, rank, wanted):
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    opened = []

    def on_cpu(path, device):
        opened.append((path, device))
        return open_teacher(path, "cpu")

    monkeypatch.setattr(distill, "open_teacher", on_cpu)
    file = teacher_file(tmp_path)
    config = tiny(*STUDENT, f"distill.teacher={file}")
    data = data_of(config)
    attach_teacher_labels(data, config, device, only="val")
    assert opened == [(str(file), wanted)]
    assert data.splits["val"].load(0).teacher is not None
    assert data.splits["train"].load(0).teacher is None


def test_without_a_teacher_it_is_said_how_to_name_one(tiny):
    with pytest.raises(ConfigError, match=r"distill\.teacher is not set: .*distill\.teacher=runs"):
        label_run(tiny())


def test_a_folder_of_heatmaps_teaches(tiny, tmp_path):
    config = tiny(*STUDENT, f"distill.teacher={tmp_path / 'maps'}")
    data = data_of(config)
    for source in data.splits.values():
        for number, record in enumerate(source.records):
            path = tmp_path / "maps" / record.generator / f"{record.uid}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((12, 12), number / 32))
    attach_teacher_labels(data, config, "cpu")
    sample = data.splits["train"].load(5)
    np.testing.assert_allclose(sample.teacher.heatmap, np.full((48, 48), 5 / 32), atol=1e-6)
    assert (sample.teacher.sigma == DEFAULT_SIGMA).all()
    assert math.isnan(sample.teacher.score)
    np.save(path, np.zeros((12, 13)))
    with pytest.raises(ArtifactNetError, match="13x12.*48x48"):
        attach_teacher_labels(data_of(config), config, "cpu")
    path.unlink()
    with pytest.raises(ArtifactNetError, match="either one of them is missing"):
        attach_teacher_labels(data_of(config), config, "cpu")


def test_features_of_a_folder_of_heatmaps_are_missed_before_it_is_read(tiny, tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "a.npy", np.zeros((12, 12)))
    config = tiny(*STUDENT, f"distill.teacher={tmp_path / 'maps'}", "distill.feature=10")
    message = r"distill\.feature is above 0, but maps gives no features.*distill\.feature=0"
    with pytest.raises(ConfigError, match=message):
        attach_teacher_labels(data_of(config), config, "cpu")
    with pytest.raises(ConfigError, match=message):
        label_run(config)


@pytest.mark.slow
def test_a_student_trains_on_what_the_teacher_said(tiny, tmp_path):
    from artifactnet.training.trainer import train_detector

    file = teacher_file(tmp_path)
    taught = [*STUDENT, f"distill.teacher={file}", "distill.feature=10", "loss.bce=0"]
    taught.append("train.monitor=teacher_cc")
    found = train_detector(tiny(*taught))
    assert found.results["training"]["best_validation"]["teacher_feature"] > 0
    assert (found.run_dir / "model.safetensors").is_file()
    assert -1 <= found.results["training"]["best_validation"]["teacher_cc"] <= 1
    teacher = found.results["teacher"]
    assert teacher["images"] > 0
    again = evaluate_run(found.run_dir)
    assert again["teacher"] == teacher
    # the same run does not go on with another teacher at the same place
    resumed = [*taught, "resume=true", "train.epochs=2"]
    model = load_model(file, "cpu").model
    with torch.no_grad():
        model.head.bias.add_(1)
    save_checkpoint(model, file)
    with pytest.raises(ArtifactNetError, match=r"another teacher"):
        train_detector(tiny(*resumed))
    file.unlink()
    assert "not compared with the teacher" in " ".join(evaluate_run(found.run_dir)["data_warnings"])
