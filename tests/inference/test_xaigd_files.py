"""What ``--save-masks`` writes: X-AIGD's layouts, to the pixel, or nothing at all."""

import csv
import io
import json
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from artifactnet.cli import main
from artifactnet.inference import folder, xaigd_files
from artifactnet.inference import predictor as predictor_module
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.types import ArtifactNetError

TEXTURE, EDGES, PHYSICS = ("low-level-texture", "low-level-edge_shape", "cognitive-level-physics")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predictor(pixel_model):
    return Predictor(pixel_model((32, 32)))


def files(root) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in Path(root).rglob("*") if p.is_file())


def gray(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def table(out) -> list[list[str]]:
    with open(Path(out) / "instances.csv", newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


def entries(out) -> list[dict]:
    return [json.loads(line) for line in (Path(out) / "predictions.jsonl").open()]


def content(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path, rows) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": c, "path": None}, "generator": g, "uid": u} for c, g, u in rows]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


# --- layouts ------------------------------------------------------------------------------


def test_layouts(here, predictor, painted, put):
    put(painted((0, 2, 3, 10, 9), (2, 20, 20, 30, 31)), here / "in" / "sdxl" / "one.png")
    put(painted((0, 0, 0, 32, 32)), here / "in" / "flux" / "one.png")
    put(painted(), here / "in" / "flux" / "clean.png")
    summary = predict_to_folder(predictor, ["in"], "out", save_masks=True, heatmaps=False)
    assert (summary.images, summary.failures) == (3, [])
    assert files("out") == [
        "instances.csv",
        "masks/category-agnostic/flux/one/mask.png",
        "masks/category-agnostic/sdxl/one/mask.png",
        f"masks/fine-grained/flux/{TEXTURE}/one/mask.png",
        f"masks/fine-grained/sdxl/{PHYSICS}/one/mask.png",
        f"masks/fine-grained/sdxl/{TEXTURE}/one/mask.png",
        "predictions.jsonl",
        "predictions.settings.json",
    ]
    texture, physics = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    texture[2:10, 3:9] = 255
    physics[20:30, 20:31] = 255
    fine = Path("out/masks/fine-grained/sdxl")
    np.testing.assert_array_equal(gray(fine / TEXTURE / "one" / "mask.png"), texture)
    np.testing.assert_array_equal(gray(fine / PHYSICS / "one" / "mask.png"), physics)
    agnostic = gray("out/masks/category-agnostic/sdxl/one/mask.png")
    np.testing.assert_array_equal(agnostic, texture | physics)
    assert table("out") == [
        ["generator", "uid", "category", "x_min", "y_min", "x_max", "y_max"],
        ["flux", "one", TEXTURE, "0", "0", "32", "32"],
        ["sdxl", "one", TEXTURE, "3", "2", "9", "10"],
        ["sdxl", "one", PHYSICS, "20", "20", "31", "30"],
    ]
    assert Path("out/instances.csv").read_bytes().startswith(b"generator,uid,category,x_min")
    assert b"\r" not in Path("out/instances.csv").read_bytes()


def test_instances_are_null_where_nobody_looked(here, predictor, painted, put):
    put(painted((0, 2, 3, 10, 9)), here / "g" / "a.v2.png")
    put(painted(), here / "g" / "b.png")
    predict_to_folder(predictor, ["g"], "out", heatmaps=False)
    assert [e["instances"] for e in entries("out")] == [None, None]
    predict_to_folder(predictor, ["g"], "out")
    first, second = entries("out")
    assert (first["generator"], first["uid"], second["instances"]) == ("g", "a.v2", [])
    (instance,) = first["instances"]
    assert (instance["category"], instance["box"], instance["area"]) == (TEXTURE, [3, 2, 9, 10], 48)
    assert first["heatmap"] == "heatmaps/a.v2.png.png"


def test_masks_have_the_original_size(here, pixel_model, put):
    put(np.full((45, 70, 3), (255, 0, 0), np.uint8), here / "g" / "a.png")
    for tiles in (False, True):
        out = f"out{tiles}"
        predictor = Predictor(pixel_model((32, 32)))
        predict_to_folder(predictor, ["g"], out, save_masks=True, tiles=tiles)
        mask = gray(f"{out}/masks/category-agnostic/g/a/mask.png")
        assert mask.shape == (45, 70)
        assert (mask == 255).all()


def test_overlapping_categories_have_a_mask_each(here, pixel_model, painted, put):
    put(painted((0, 0, 0, 20, 20), (1, 10, 10, 30, 30)), here / "g" / "a.png")
    predict_to_folder(Predictor(pixel_model((32, 32), "sigmoid")), ["g"], "out", save_masks=True)
    fine = Path("out/masks/fine-grained/g")
    both = gray(fine / TEXTURE / "a/mask.png") & gray(fine / EDGES / "a/mask.png")
    assert (both > 0).sum() == 100
    assert (gray("out/masks/category-agnostic/g/a/mask.png") > 0).sum() == 700


def test_uncategorized_regions_have_a_mask_but_no_row(here, pixel_model, painted, put):
    model = pixel_model((32, 32))
    model.known_categories = ()
    put(painted((0, 2, 3, 10, 9), (2, 20, 20, 30, 31)), here / "g" / "a.png")
    summary = predict_to_folder(Predictor(model), ["g"], "out", save_masks=True)
    assert summary.uncategorized == 2
    assert len(table("out")) == 1
    assert [i["category"] for i in entries("out")[0]["instances"]] == ["uncategorized"] * 2
    masks = [name for name in files("out") if name.startswith("masks/")]
    assert masks == ["masks/category-agnostic/g/a/mask.png"]
    assert (gray("out/masks/category-agnostic/g/a/mask.png") > 0).sum() == 48 + 110


def test_min_area_thins_the_table_not_the_masks(here, predictor, painted, put):
    put(painted((0, 0, 0, 2, 2), (0, 10, 10, 20, 20)), here / "g" / "a.png")
    predict_to_folder(predictor, ["g"], "out", save_masks=True, min_area=5)
    assert [row[3:] for row in table("out")[1:]] == [["10", "10", "20", "20"]]
    assert (gray("out/masks/category-agnostic/g/a/mask.png") > 0).sum() == 104


# --- names --------------------------------------------------------------------------------


def test_two_images_of_one_name(here, predictor, painted, put):
    """The first answer stays; the other image is listed."""
    put(painted((0, 2, 3, 10, 9)), here / "p" / "g" / "a.png")
    put(painted((2, 0, 0, 32, 32)), here / "q" / "g" / "a.bmp")
    put(painted(), here / "p" / "h" / "clean.png")
    put(painted((2, 0, 0, 32, 32)), here / "q" / "h" / "clean.png")
    summary = predict_to_folder(predictor, ["p", "q"], "out", save_masks=True)
    assert [f.path for f in summary.failures] == ["q/g/a.bmp", "q/h/clean.png"]
    assert "p/g/a.png" in summary.failures[0].reason
    assert summary.images == len(entries("out")) == 2
    assert (gray("out/masks/category-agnostic/g/a/mask.png") > 0).sum() == 48
    assert len(table("out")) == 2
    assert files("out/heatmaps") == ["p/g/a.png.png", "p/h/clean.png.png"]
    # without masks, names may repeat
    assert predict_to_folder(predictor, ["p", "q"], "again").failures == []


def test_an_unusable_image_does_not_take_the_name(here, predictor, painted, put):
    put(painted(), here / "p" / "g" / "a.png")
    (here / "p" / "g" / "a.png").write_bytes(b"nothing")
    put(painted((2, 0, 0, 32, 32)), here / "q" / "g" / "a.png")
    summary = predict_to_folder(predictor, ["p", "q"], "out", save_masks=True)
    assert [f.path for f in summary.failures] == ["p/g/a.png"]
    assert (gray("out/masks/category-agnostic/g/a/mask.png") > 0).all()


def test_a_file_name_that_is_no_text(here, predictor, painted, put):
    """Bytes of another encoding: fine as a path, spelled out in folders and in a csv."""
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    put(painted((0, 0, 0, 9, 9)), here / "g" / "a.png")
    try:
        (here / "g" / "a.png").rename(here / "g" / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    summary = predict_to_folder(predictor, ["g"], "out", save_masks=True, heatmaps=False)
    assert (summary.images, summary.failures) == (1, [])
    (entry,) = entries("out")
    assert Path(entry["path"]).exists()
    (mask,) = Path("out/masks/category-agnostic/g").iterdir()
    assert mask.name.isprintable()
    assert table("out")[1][:2] == ["g", "caf\\udce9"]


# --- shards -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_shards(here, predictor, painted, workers):
    rows = [
        (content(painted((0, 2, 3, 10, 9))), "sdxl", "u0"),
        (b"no image", "sdxl", "u1"),
        (content(painted((2, 0, 0, 32, 32))), "flux.1-dev", "u0"),
        (content(painted()), "../../evil", "u3"),
        (content(painted()), "sdxl", "../../../evil"),
        (content(painted((1, 0, 0, 9, 9))), "sdxl", "u0"),
        (content(painted((1, 0, 0, 9, 9))), "sdxl", "u6"),
    ]
    name = "data/labeled_test-00000-of-00001.parquet"
    shard(here / name, rows)
    summary = predict_to_folder(
        predictor,
        ["data/labeled_test-*.parquet"],
        "out/deep/er",
        save_masks=True,
        batch_size=2,
        workers=workers,
    )
    reasons = {f.path: f.reason for f in summary.failures}
    assert list(reasons) == [f"{name}#{i}" for i in (1, 3, 4, 5)]
    assert "../../evil" in reasons[f"{name}#3"]
    assert f"{name}#0" in reasons[f"{name}#5"]
    found = [(e["path"], e["generator"], e["uid"]) for e in entries("out/deep/er")]
    assert found == [
        (f"{name}#0", "sdxl", "u0"),
        (f"{name}#2", "flux.1-dev", "u0"),
        (f"{name}#6", "sdxl", "u6"),
    ]
    stem = "labeled_test-00000-of-00001.parquet"
    assert [e["heatmap"] for e in entries("out/deep/er")] == [
        f"heatmaps/{stem}#{i}.png" for i in (0, 2, 6)
    ]
    assert files("out/deep/er/masks/category-agnostic") == [
        "flux.1-dev/u0/mask.png",
        "sdxl/u0/mask.png",
        "sdxl/u6/mask.png",
    ]
    assert not [name for name in files(here) if "evil" in name]


def test_a_row_is_predicted_as_its_file(here, predictor, noise, put):
    pixels = noise(32, 32)
    shard(here / "s.parquet", [(content(pixels), "g", "a")])
    put(pixels, here / "g" / "a.png")
    predict_to_folder(predictor, ["s.parquet"], "one", save_masks=True)
    predict_to_folder(predictor, ["g"], "two", save_masks=True)
    assert table("one") == table("two")
    assert len(table("one")) > 5
    assert files("one/masks") == files("two/masks")
    for name in files("one/masks"):
        assert Path("one/masks", name).read_bytes() == Path("two/masks", name).read_bytes()
    a, b = entries("one")[0], entries("two")[0]
    assert a["probability"] == b["probability"]
    assert a["instances"] == b["instances"]


def test_our_scores_of_our_answers(here, predictor, painted):
    """A model that is right to the pixel gets full marks; what it misses is counted."""
    boxes = {"u0": (0, 2, 3, 10, 9), "u1": (2, 4, 4, 30, 20), "u2": None}
    rows, labels = [], []
    for uid, box in boxes.items():
        rows.append((content(painted(*([box] if box else []))), "sdxl", uid))
        channel, top, left, bottom, right = box or (1, 0, 0, 5, 5)  # u2 has one that is not seen
        corners = [(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)]
        label = (TEXTURE, EDGES, PHYSICS)[channel]
        points = [[float(x), float(y)] for x, y in corners]
        labels.append([{"label": label, "points": points}])
    table_rows = [
        {
            "image": {"bytes": c, "path": None},
            "generator": g,
            "uid": u,
            "labels": polygons,
            "width": 32,
            "height": 32,
        }
        for (c, g, u), polygons in zip(rows, labels, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(table_rows), "s.parquet")
    predict_to_folder(predictor, ["s.parquet"], "out", save_masks=True, heatmaps=False)

    def score(command, predictions, *extra):
        arguments = [command, "--labels", "s.parquet", "--predictions", predictions]
        assert main([*arguments, *extra, "--out", "scores.csv"]) == 0
        with open("scores.csv", newline="") as handle:
            return {row["category"]: row for row in csv.DictReader(handle)}

    fine = score("score-pixels", "out/masks/fine-grained", "--task", "fine-grained")
    assert {c: float(fine[c]["IoU"]) for c in (TEXTURE, EDGES, PHYSICS)} == {
        TEXTURE: 1.0, EDGES: 0.0, PHYSICS: 1.0,
    }  # fmt: skip
    assert int(fine[EDGES]["zero_prediction_images"]) == 3
    (whole,) = score(
        "score-pixels", "out/masks/category-agnostic", "--task", "category-agnostic"
    ).values()
    seen = 8 * 6 + 26 * 16
    assert float(whole["IoU"]) == pytest.approx(seen / (seen + 25))
    assert int(whole["zero_prediction_images"]) == 1
    found = score("score-instances", "out/instances.csv")
    for label, (hits, misses) in {TEXTURE: (1, 0), EDGES: (0, 1), PHYSICS: (1, 0)}.items():
        assert (int(found[label]["TP"]), int(found[label]["FN"])) == (hits, misses)
        assert (int(found[label]["FP"]), int(found[label]["invalid_prediction_boxes"])) == (0, 0)


# --- all or nothing -----------------------------------------------------------------------


def test_masks_of_two_runs_are_never_mixed(here, predictor, painted, put):
    put(painted((0, 2, 3, 10, 9)), here / "g" / "a.png")
    predict_to_folder(predictor, ["g"], "out", save_masks=True)
    before = {name: Path("out", name).read_bytes() for name in files("out")}
    with pytest.raises(ArtifactNetError, match=r"^out/masks exists already.*another folder$"):
        predict_to_folder(predictor, ["g"], "out", save_masks=True)
    assert {name: Path("out", name).read_bytes() for name in files("out")} == before
    predict_to_folder(predictor, ["g"], "out")  # without masks, answers are replaced as ever


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError, OSError(28, "No space")])
def test_an_interrupted_run_leaves_no_masks(here, predictor, painted, put, error):
    """A missing mask would be taken for an answer: they are not in ``masks`` yet."""
    for name in "ab":
        put(painted((0, 2, 3, 10, 9)), here / "g" / f"{name}.png")

    def stop(answer):
        assert Path("out/masks.partial/category-agnostic/g/a/mask.png").exists()
        raise error

    kind = ArtifactNetError if isinstance(error, OSError) else error
    with pytest.raises(kind):
        predict_to_folder(predictor, ["g"], "out", save_masks=True, heatmaps=False, report=stop)
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "masks.partial", "predictions.partial.jsonl", "predictions.settings.json",
    ]  # fmt: skip


def test_a_full_disk_leaves_no_masks(here, predictor, painted, put, monkeypatch):
    put(painted((0, 2, 3, 10, 9)), here / "g" / "a.png")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xaigd_files, "_save", full)
    with pytest.raises(ArtifactNetError, match=r"out: .*No space left"):
        predict_to_folder(predictor, ["g"], "out", save_masks=True)
    assert files("out") == []


def test_maps_of_one_image_at_a_time(here, predictor, noise, put):
    """Those of the answer before are let go of before the next are made."""
    for k in range(4):
        put(noise(40, 50, k), here / "g" / f"{k}.png")
    alive, seen = [], []

    def watch(answer):
        alive.append(weakref.ref(answer.probabilities))

    find = predictor_module.find_artifacts

    def watched(*args):
        seen.append(sum(ref() is not None for ref in alive))
        return find(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor_module, "find_artifacts", watched)
        predict_to_folder(predictor, ["g"], "out", save_masks=True, report=watch)
    assert seen == [0, 0, 0, 0]


def test_waiting_sources_hold_no_content(here, predictor, painted, monkeypatch):
    """What is noted while an image is judged must not keep its file in memory."""
    shard(here / "s.parquet", [(content(painted()), "g", f"u{i}") for i in range(3)])
    noted = []
    append = folder.deque.append

    class Watching(folder.deque):
        def append(self, item):
            noted.append(item.source.image)
            append(self, item)

    monkeypatch.setattr(folder, "deque", Watching)
    predict_to_folder(predictor, ["s.parquet"], "out")
    assert noted == ["", "", ""]


# --- the command --------------------------------------------------------------------------


@pytest.fixture
def saved(here, segmenter):
    save_checkpoint(
        segmenter("convnext", (32, 64), categories=[]), here / "uncategorized.safetensors"
    )
    save_checkpoint(segmenter("convnext", (32, 64)), here / "m.safetensors")
    return ["--device", "cpu", "--out", "out"]


def test_predict_command(here, saved, noise, put, capsys):
    put(noise(60, 90), here / "sdxl" / "a.png")
    shard(here / "s.parquet", [(content(noise(70, 80)), "flux", "b")])
    arguments = ["predict", "sdxl", "s.parquet", "--model", "m.safetensors", *saved]
    arguments += ["--save-masks", "--tiles", "--overlap", "0.5", "--min-area", "3"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "2 of 2 images predicted" in out
    assert "without a category" not in err
    expected = Predictor(load_checkpoint("m.safetensors")).predict(
        "sdxl/a.png", tiles=True, overlap=0.5, min_area=3
    )
    mask = gray("out/masks/category-agnostic/sdxl/a/mask.png")
    np.testing.assert_array_equal(mask > 0, expected.mask != 0)
    rows = [row[2:] for row in table("out")[1:] if row[0] == "sdxl"]
    assert rows == [[i.category, *map(str, i.box)] for i in expected.instances]
    assert {row[0] for row in table("out")[1:]} == {"sdxl", "flux"}


def test_predict_command_counts_uncategorized_regions(here, saved, noise, put, capsys):
    put(noise(60, 90), here / "sdxl" / "a.png")
    arguments = ["predict", "sdxl", "--model", "uncategorized.safetensors", *saved]
    assert main([*arguments, "--save-masks"]) == 0
    count = len(entries("out")[0]["instances"])
    assert count > 0
    assert f"{count} regions without a category" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--overlap", "0.5"], "--tiles"),
        (["--tiles", "--overlap", "1.5"], "overlap"),
        (["--tiles", "--no-heatmaps"], "tiles"),
    ],
)
def test_predict_command_with_contradictions(here, saved, noise, put, capsys, extra, message):
    put(noise(), here / "g" / "a.png")
    assert main(["predict", "g", "--model", "m.safetensors", *saved, *extra]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not Path("out").exists()
