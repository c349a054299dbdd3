"""Out of distribution: missing sets, one class, parts, added photographs, images trained on."""

import json

import numpy as np
import pytest
from PIL import Image
from stub_models import save_manifest

from artifactnet.cli import main
from artifactnet.config import Config
from artifactnet.data.test_sets.read import read_test_set
from artifactnet.experiments import leaks, ood
from artifactnet.experiments.chosen_sets import read_sets
from artifactnet.experiments.evaluated_models import ModelSpec, training_configs
from artifactnet.experiments.leaks import TRAINED
from artifactnet.experiments.ood import run_ood
from artifactnet.experiments.robustness import run_robustness
from artifactnet.experiments.side_by_side import describe_sets
from artifactnet.types import ArtifactNetError

MODEL = "a=stub_models:brightness"


def put(path, level):
    """A flat image of one level, which no other image has byte by byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 50, 3), level, np.uint8)).save(path)


@pytest.fixture
def two_parts(tmp_path):
    """Generator ``good`` is told from photographs, ``evil`` is as dark as they are."""
    root = tmp_path / "parts"
    for number, level in enumerate((10, 20, 30)):
        put(root / "good" / "0_real" / f"{number}.png", level)
        put(root / "good" / "1_fake" / f"{number}.png", 200 + level)
        put(root / "evil" / "0_real" / f"{number}.png", 40 + level)
        put(root / "evil" / "1_fake" / f"{number}.png", 5 + level)
    return root


@pytest.fixture
def fakes(tmp_path):
    root = tmp_path / "fakes" / "fake" / "sdxl"
    for number, level in enumerate((60, 210, 220)):
        put(root / f"{number}.png", level)
    return root.parent.parent


def row_of(found, name):
    return next(row for row in found["rows"] if row["set"] == name)


def test_the_table(tmp_path, two_parts, fakes):
    sets = {"chameleon": "gone", "parts": str(two_parts), "alone": str(fakes)}
    found = run_ood([MODEL, "b=stub_models:no_number"], sets, tmp_path / "out", paper=True)
    assert list(found["missing"]) == ["chameleon"]
    both = row_of(found, "parts")
    assert both["accuracy"] == both["balanced_accuracy"] == 9 / 12
    assert {name: one["balanced_accuracy"] for name, one in both["parts"].items()} == {
        "good": 1.0,
        "evil": 0.5,
    }
    assert row_of(found, "alone")["accuracy"] is None
    assert row_of(found, "alone")["fake_recall"] == 2 / 3
    page = (tmp_path / "out" / "ood.md").read_text()
    header = "| model | chameleon | parts Acc | parts BA | alone recall of fake |"
    assert header in page
    assert "| a | - | 0.750 | 0.750 | 0.667 |" in page
    assert "- chameleon: missing (chameleon=gone: no such file or folder)" in page
    assert "| evil | 0.500 |" in page
    assert "WARNING: b could not judge" in page
    assert "- WARNING: a: its training data is unknown, so nothing was compared" in page
    assert "| FakeXplainer | 0.852 | 0.843 | 0.801 | 0.864 | 0.874 |" in page
    assert json.loads((tmp_path / "out" / "ood.json").read_text()) == json.loads(json.dumps(found))


def test_shared_photographs_belong_to_every_part(tmp_path):
    root = tmp_path / "set"
    for name, levels in {"x": (210, 220), "y": (5, 6)}.items():
        for number, level in enumerate(levels):
            put(root / "fake" / name / f"{number}.png", level)
    put(root / "real" / "0.png", 50)
    put(root / "real" / "1.png", 200)
    (row,) = run_ood([MODEL], {"s": str(root)}, tmp_path / "out")["rows"]
    assert {name: one["images"] for name, one in row["parts"].items()} == {"x": 4, "y": 4}
    assert row["parts"]["x"]["balanced_accuracy"] == 0.75
    assert row["parts"]["y"]["balanced_accuracy"] == 0.25


@pytest.mark.parametrize("how", ["all", "one", "folder"])
def test_photographs_are_added_and_said(tmp_path, fakes, two_parts, how):
    put(tmp_path / "photos" / "p.jpg", 90)
    what = {"all": "parts", "one": "alone=parts", "folder": str(tmp_path / "photos")}[how]
    sets = {"alone": str(fakes), "parts": str(two_parts)}
    found = run_ood([MODEL], sets, tmp_path / "out", reals=[what])
    about = found["sets"]["alone"]
    assert (about["real"], about["fake"]) == (1 if how == "folder" else 6, 3)
    assert row_of(found, "alone")["real_recall"] == 1
    assert row_of(found, "alone")["balanced_accuracy"] == pytest.approx(5 / 6)
    page = (tmp_path / "out" / "ood.md").read_text()
    assert page.startswith(f"# {ood.TITLE}; real images added: {what}\n")
    assert row_of(found, "parts")["images"] == 12


def test_photographs_for_a_set_that_has_some(tmp_path, fakes, two_parts):
    sets = {"alone": str(fakes), "parts": str(two_parts)}
    with pytest.raises(ArtifactNetError, match="parts has real images already"):
        read_sets(sets, ["parts=alone"])
    with pytest.raises(ArtifactNetError, match="alone=.*: has no real images for alone"):
        read_sets(sets, ["alone=alone"])
    with pytest.raises(ArtifactNetError, match="have parts"):
        read_sets(sets, ["parts", "parts"])
    with pytest.raises(ArtifactNetError, match="that set does not exist"):
        read_sets(sets | {"gone": "gone"}, ["alone=gone"], missing={})
    with pytest.raises(ArtifactNetError, match="gone=gone: no such"):
        read_sets({"gone": "gone"}, [], missing={})


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run whose training data holds two images of ``parts`` under other names."""

    def learn(*paths):
        for number, path in enumerate(paths):
            target = tmp_path / "learned" / ("fake" if "1_fake" in str(path) else "real")
            target.mkdir(parents=True, exist_ok=True)
            (target / f"other{number}.png").write_bytes(path.read_bytes())
        source = read_test_set("learned", tmp_path / "learned").source
        of_a = [Config()]
        monkeypatch.setattr(
            leaks, "training_configs", lambda spec: of_a if spec.name == "a" else []
        )
        monkeypatch.setattr(leaks, "trained_on", lambda config: [source])

    return learn


@pytest.mark.parametrize("keep", [False, True])
def test_images_trained_on_are_left_out_for_all(tmp_path, two_parts, trained, keep):
    trained(two_parts / "good" / "1_fake" / "0.png", two_parts / "evil" / "0_real" / "2.png")
    models = [MODEL, "b=stub_models:brightness"]
    sets = {"parts": str(two_parts)}
    found = run_ood(models, sets, tmp_path / "out", keep_duplicates=keep)
    assert found["trained"] == {"a": {"parts": 2}}
    assert {row["images"] for row in found["rows"]} == {12 if keep else 10}
    page = (tmp_path / "out" / "ood.md").read_text()
    fate = "kept" if keep else "left out for all models"
    assert (
        f"a: 2 images of parts are byte by byte in its training or validation data: {fate}" in page
    )
    assert (f"; left out: 2 {TRAINED}" in page) is not keep


def test_a_part_that_lost_its_fakes_has_no_figure(tmp_path, two_parts, trained):
    trained(*sorted((two_parts / "evil" / "1_fake").iterdir()))
    run_ood([MODEL], {"parts": str(two_parts)}, tmp_path / "out")
    page = (tmp_path / "out" / "ood.md").read_text()
    assert "| good | 1.000 |" in page
    assert "| evil | - |" in page


def test_training_data_that_is_gone_is_said(tmp_path, two_parts, trained, monkeypatch):
    def gone(config):
        raise ArtifactNetError("data.root=/gone: no such folder")

    trained(two_parts / "good" / "1_fake" / "0.png")
    monkeypatch.setattr(leaks, "trained_on", gone)
    found = run_ood([MODEL], {"parts": str(two_parts)}, tmp_path / "out")
    assert found["rows"][0]["images"] == 12
    (text,) = found["warnings"]
    assert text == "a: its training data cannot be read any more: data.root=/gone: no such folder"


def test_a_run_learned_from_its_training_and_validation_data(tiny, tmp_path):
    for number in range(8):
        put(tmp_path / "d" / "real" / f"{number}.png", number)
        put(tmp_path / "d" / "fake" / f"{number}.png", 100 + number)
    config = tiny("data.name=folder", f"data.root={tmp_path / 'd'}", "data.val_fraction=0.25")
    uids = [{record.uid for record in source.records} for source in leaks.trained_on(config)]
    assert [len(part) for part in uids] == [4, 2]  # the other two are its test split
    assert not uids[0] & uids[1]


def test_formats_that_differ_by_class_are_a_warning(tmp_path):
    put(tmp_path / "odd" / "real" / "a.jpg", 10)
    put(tmp_path / "odd" / "fake" / "a.png", 20)
    put(tmp_path / "even" / "real" / "a.png", 10)
    put(tmp_path / "even" / "fake" / "a.png", 20)
    sets = {name: read_test_set(name, tmp_path / name) for name in ("odd", "even")}
    found = describe_sets(sets)
    assert found["odd"]["warnings"][0].startswith(
        "odd: file formats differ: real JPEG 100%, fake PNG 100%"
    )
    assert found["even"]["warnings"] == []


def test_a_run_names_its_data(tiny, tmp_path):
    """The config beside a model's file is that of its run; those that it started from follow."""
    from artifactnet.runs.run_folder import prepare_run_folder

    folder = prepare_run_folder(tiny("name=r"))
    (folder / "model.safetensors").write_bytes(b"")
    for source in (folder, folder / "model.safetensors"):
        (config,) = training_configs(ModelSpec("r", "saved", str(source)))
        assert (config.name, config.data.demo_train) == ("r", 8)
    later = prepare_run_folder(tiny("name=later", f"init_from={folder}"))
    (later / "model.safetensors").write_bytes(b"")
    found = training_configs(ModelSpec("later", "saved", str(later)))
    assert [config.name for config in found] == ["later", "r"]
    assert training_configs(ModelSpec("s", "saved", "student-nano")) == []
    assert training_configs(ModelSpec("c", "code", "stub_models:net")) == []


def test_what_was_learned_from_is_read_once_for_all_models_and_sets(
    tmp_path, two_parts, fakes, trained, monkeypatch
):
    trained(two_parts / "evil" / "0_real" / "2.png", fakes / "fake" / "sdxl" / "1.png")
    (source,) = leaks.trained_on(Config())
    reads = []
    monkeypatch.setattr(leaks, "trained_on", lambda config: reads.append(config) or [source])
    monkeypatch.setattr(leaks, "training_configs", lambda spec: [Config()])
    find = leaks.find_shared
    monkeypatch.setattr(leaks, "find_shared", lambda *given: reads.append(given) or find(*given))
    sets = {"parts": str(two_parts), "alone": str(fakes)}
    found = run_ood([MODEL, "b=stub_models:brightness"], sets, tmp_path / "out")
    # the fake is in both sets
    assert found["trained"] == {name: {"parts": 2, "alone": 1} for name in "ab"}
    assert {row["set"]: row["images"] for row in found["rows"]} == {"parts": 10, "alone": 2}
    assert {name: one["images"] for name, one in found["rows"][0]["parts"].items()} == {
        "good": 5,
        "evil": 5,
    }
    assert len(reads) == 2


def test_a_start_that_is_gone_is_said(tmp_path, two_parts, trained, monkeypatch):
    trained(two_parts / "good" / "1_fake" / "0.png")
    monkeypatch.setattr(leaks, "training_configs", lambda _: [Config(init_from="gone")])
    found = run_ood([MODEL], {"parts": str(two_parts)}, tmp_path / "out")
    assert found["trained"] == {"a": {"parts": 1}}
    assert found["warnings"][0] == "a: the training data of its start gone is unknown"


def test_a_set_of_nothing_else_is_refused(tmp_path, two_parts, trained):
    trained(two_parts / "good" / "1_fake" / "0.png")
    alone = tmp_path / "alone" / "fake" / "0.png"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((two_parts / "good" / "1_fake" / "0.png").read_bytes())
    with pytest.raises(ArtifactNetError, match="alone=.*every image .* --keep-duplicates"):
        run_ood([MODEL], {"alone": str(tmp_path / "alone")}, tmp_path / "out")


def test_robustness_leaves_them_out_too(tmp_path, two_parts, trained):
    trained(two_parts / "good" / "1_fake" / "0.png")
    sets = {"parts": str(two_parts)}
    for keep, images in ((False, 11), (True, 12)):
        found = run_robustness([MODEL], sets, tmp_path / "out", ["half"], keep_duplicates=keep)
        assert (found["trained"], found["rows"][0]["images"]) == ({"a": {"parts": 1}}, images)
        assert "1 images of parts are byte by byte in its" in found["warnings"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["gone"]}, "nothing that can be opened"),
        ({"sets": {"a": "gone", "b": "gone"}}, "a=gone: no such file or folder; b=gone"),
        ({"sets": {"synthbuster": "{parts}"}}, "read as synthbuster: .*other known layouts"),
        ({"reals": ["parts"]}, "all sets have real images already"),
    ],
)
def test_refused_before_any_model_is_opened(tmp_path, two_parts, monkeypatch, change, message):
    monkeypatch.setattr(ood, "open_model", lambda *_: pytest.fail("opened"))
    given = {"models": [MODEL], "sets": {"parts": str(two_parts)}, "out": tmp_path / "out"} | change
    given["sets"] = {k: v.format(parts=two_parts) for k, v in given["sets"].items()}
    with pytest.raises(ArtifactNetError, match=message) as info:
        run_ood(**given)
    assert "\n" not in str(info.value)


def test_predictions_that_fit_two_sets_are_refused(tmp_path, two_parts, monkeypatch):
    """Unless they say which, or are about one and the same file."""
    other = tmp_path / "other" / "good" / "1_fake" / "0.png"
    put(other, 77)
    put(other.parent.parent / "0_real" / "0.png", 78)
    row = {"image": "good/1_fake/0.png", "probability": 0.9}
    path = tmp_path / "theirs.jsonl"
    path.write_text(json.dumps(row))
    sets = {"parts": str(two_parts), "other": str(tmp_path / "other")}
    with monkeypatch.context() as patch:
        patch.setattr(ood, "open_model", lambda *_: pytest.fail("opened"))
        with pytest.raises(ArtifactNetError, match=r"theirs\.jsonl:1: fits an image of parts and"):
            run_ood([str(path)], sets, tmp_path / "out")
    path.write_text(json.dumps(row | {"set": "parts"}))
    found = run_ood([str(path)], sets, tmp_path / "out")
    assert [(row["set"], row["failed"]) for row in found["rows"]] == [("parts", 11)]
    path.write_text(json.dumps(row | {"image": str(two_parts / "good" / "1_fake" / "0.png")}))
    same = {"parts": str(two_parts), "again": str(two_parts)}
    found = run_ood([str(path)], same, tmp_path / "same")
    assert [row["failed"] for row in found["rows"]] == [11, 11]


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_manifest(tmp_path / "data")
    words = [
        "experiment",
        "ood",
        "--model",
        MODEL,
        "--on",
        "toy=data/images.jsonl",
        "fakeclue=gone",
    ]
    assert main([*words, "--out", "out", "--keep-duplicates"]) == 0
    out = capsys.readouterr().out
    assert "| a | 1.000 | 1.000 | - |" in out
    assert "table in out/ood.md and .json" in out
