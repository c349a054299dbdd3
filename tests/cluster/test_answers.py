"""Parts and the manifest: the columns, what a stop leaves behind, and what is taken up again."""

import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from canned_predictor import CannedPredictor
from cluster_jobs import job_of, png, read_rows, run_job, tar_of, write_shard
from PIL import Image

from artifactnet.cluster import parts
from artifactnet.cluster.job import ModelChoice, make_job
from artifactnet.cluster.parts import SCHEMA
from artifactnet.cluster.plan import Plan
from artifactnet.cluster.worker import DIED, Careful, Worker
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.lines import predict_lines
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError


def fill(folder, count=40):
    folder.mkdir(exist_ok=True)
    for k in range(count):
        (folder / f"{k:03d}.png").write_bytes(png(k))


def local_lines(predictor, sources, **options):
    lines = []
    predict_lines(predictor, sources, lines.append, **options)
    return {line["path"]: line for line in lines}


def assert_equal(rows, lines, tolerance=1e-6):
    """Rows of parts say what lines of `predict` say, heatmaps aside."""
    assert sorted(row["path"] for row in rows) == sorted(lines)
    for row in rows:
        line = lines[row["path"]]
        for key, value in line.items():
            if key in ("probability", "score") and value is not None:
                assert row[key] == pytest.approx(value, abs=tolerance)
            elif key not in ("heatmap", "instances", "stability"):
                assert row[key] == value, key
        assert row["error"] is None
        assert row["unread"] is False


def test_answers_are_those_of_the_local_engine(here, predictor):
    fill(here / "photos")
    write_shard(here / "s.parquet", [png(100 + k) for k in range(7)])
    sources = ["photos", "s.parquet"]
    summary = run_job(predictor, sources, here / "out", heatmaps=False)
    assert_equal(read_rows(here / "out"), local_lines(predictor, sources))
    assert summary.counts.rows == 47
    assert summary.counts.errors == 0
    manifest = json.loads((here / "out" / "predictions.manifest.json").read_text())
    assert [part["rows"] for part in manifest["parts"]] == [
        pq.read_metadata(here / "out" / part["file"]).num_rows for part in manifest["parts"]
    ]
    assert (manifest["rows"], manifest["errors"], manifest["lost"]) == (47, 0, 0)
    assert {here / "out" / part["file"] for part in manifest["parts"]} == set(
        (here / "out" / "predictions").iterdir()
    )
    assert sorted(p.name for p in (here / "out").iterdir()) == [
        "predictions", "predictions.manifest.json", "predictions.settings.json",
    ]  # fmt: skip
    by_part = [pq.read_table(here / "out" / p["file"]).to_pylist() for p in manifest["parts"]]
    paths = [row["path"] for rows in by_part for row in rows]
    assert paths == [*sorted(p for p in paths if p.startswith("photos")),
                     *(f"s.parquet#{k}" for k in range(7))]  # fmt: skip


def test_heatmaps_are_the_pictures_of_the_local_engine(here, predictor):
    fill(here / "photos", 5)
    predict_to_folder(predictor, ["photos"], "local")
    run_job(predictor, ["photos"], here / "out")
    for row in read_rows(here / "out"):
        local = here / "local" / "heatmaps" / f"{Path(row['path']).name}.png"
        assert row["heatmap"] == local.read_bytes()


def test_every_column_of_a_segmentation_model(here, segmenter):
    """Instances, tiles, stability: whatever the lines of `predict` have."""
    predictor = Predictor(segmenter())
    fill(here / "photos", 3)
    options = {"tiles": True, "stability": True, "min_area": 2}
    run_job(predictor, ["photos"], here / "out", **options)
    rows = read_rows(here / "out")
    predict_to_folder(predictor, ["photos"], "local", **options)
    lines = [json.loads(x) for x in (here / "local" / "predictions.jsonl").read_text().splitlines()]
    assert set(lines[0]) | {"error", "unread"} == set(SCHEMA.names)
    assert_equal(rows, {line["path"]: line for line in lines})
    for row, line in zip(rows, lines, strict=True):
        assert [i["box"] for i in row["instances"]] == [i["box"] for i in line["instances"]]
        assert row["stability"]["probabilities"].keys() == line["stability"]["probabilities"].keys()
        assert row["stability"]["spread"] == pytest.approx(line["stability"]["spread"], abs=1e-6)
    assert any(row["instances"] for row in rows)


def test_texts_of_language_models(here):
    fill(here / "photos", 3)
    run_job(CannedPredictor(), ["photos"], here / "out")
    lines = local_lines(CannedPredictor(), ["photos"])
    rows = read_rows(here / "out")
    assert rows[0]["explanation"] == lines[rows[0]["path"]]["explanation"]
    assert rows[0]["explanation"]["text"].startswith("Sure")
    assert_equal(rows, lines)


def test_a_bad_image_is_a_row_with_an_error(here, predictor):
    fill(here / "photos", 3)
    (here / "photos" / "001.png").write_bytes(png(1)[:200])
    (here / "photos" / "x.jpg").write_bytes(b"text")
    (here / "t.tar").write_bytes(tar_of({"a.png": png(5), "b.png": png(6)})[: len(png(5)) + 1600])
    summary = run_job(predictor, ["photos", "t.tar"], here / "out")
    rows = {row["path"]: row for row in read_rows(here / "out")}
    assert set(rows) == {*(f"photos/{n}" for n in ("000.png", "001.png", "002.png", "x.jpg")),
                         "t.tar", "t.tar#a.png"}  # fmt: skip
    errors = {path: row["error"] for path, row in rows.items() if row["error"]}
    assert errors["photos/x.jpg"] == "not an image: text"
    assert errors["t.tar"].startswith("the tar is damaged or cut")
    assert set(errors) == {"photos/001.png", "photos/x.jpg", "t.tar"}
    bad = rows["photos/001.png"]
    assert (bad["probability"], bad["verdict"], bad["is_fake"]) == (None, None, None)
    assert (bad["uid"], bad["generator"], bad["bytes"]) == ("001", "photos", 200)
    assert (summary.counts.rows, summary.counts.errors, summary.counts.unread) == (6, 3, 0)
    assert {f.path: f.reason for f in summary.failures} == errors
    assert [r["error"] for p, r in rows.items() if p == "photos/001.png"] == [
        f.reason for f in predict_to_folder(predictor, ["photos/001.png"], "o").failures
    ]


def test_a_stopped_job_goes_on_where_it_was(here, predictor):
    fill(here / "photos")
    run_job(predictor, ["photos"], here / "out", stop=2, heatmaps=False)
    first = {p: p.stat().st_mtime_ns for p in (here / "out" / "predictions").iterdir()}
    assert len(first) == 2
    assert not (here / "out" / "predictions.manifest.json").exists()
    (here / "out" / "_temporary" / "leftover").write_text("of a killed process")
    summary = run_job(predictor, ["photos"], here / "out", resume=True, heatmaps=False)
    assert summary.resumed == sum(pq.read_metadata(p).num_rows for p in first)
    assert {p: p.stat().st_mtime_ns for p in first} == first
    assert_equal(read_rows(here / "out"), local_lines(predictor, ["photos"]))
    assert summary.counts.rows == 40
    assert not (here / "out" / "_temporary").exists()
    again = run_job(predictor, ["photos"], here / "out", resume=True, heatmaps=False)
    assert (again.resumed, again.counts) == (40, summary.counts)


def test_images_without_prediction_are_not_told_as_predicted_earlier(here, predictor):
    fill(here / "photos", 3)
    (here / "photos" / "001.png").write_bytes(png(1)[:200])
    run_job(predictor, ["photos"], here / "out")
    again = run_job(predictor, ["photos"], here / "out", resume=True)
    assert (again.resumed, again.counts.rows, again.counts.errors) == (2, 3, 1)


def test_what_changed_is_predicted_again_and_nothing_else(here, predictor):
    fill(here / "photos")
    run_job(predictor, ["photos"], here / "out", heatmaps=False)
    before = {p.name for p in (here / "out" / "predictions").iterdir()}
    (here / "photos" / "003.png").write_bytes(png(99, (40, 40)))
    (here / "photos" / "021.png").unlink()
    summary = run_job(predictor, ["photos"], here / "out", resume=True, heatmaps=False)
    after = {p.name for p in (here / "out" / "predictions").iterdir()}
    assert 2 <= len(before - after) <= 3
    assert before & after
    assert "earlier parts were removed" in summary.warnings[0]
    assert summary.counts.rows == 39
    assert_equal(read_rows(here / "out"), local_lines(predictor, ["photos"]))


def test_a_job_of_one_unit_goes_on_with_a_new_file(here, predictor):
    """None of its parts can stay, and yet it is the same job."""
    fill(here / "photos", 3)
    run_job(predictor, ["photos"], here / "out", heatmaps=False)
    (here / "photos" / "new.png").write_bytes(png(9))
    summary = run_job(predictor, ["photos"], here / "out", resume=True, heatmaps=False)
    assert summary.counts.rows == 4
    assert_equal(read_rows(here / "out"), local_lines(predictor, ["photos"]))


def test_what_could_not_be_read_is_tried_again(here, predictor):
    rows = [{"image": f"{k}.png"} for k in range(4)]
    (here / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(3):
        (here / f"{k}.png").write_bytes(png(k))
    first = run_job(predictor, ["m.jsonl"], here / "out", together=2)
    assert (first.counts.errors, first.counts.unread) == (1, 1)
    (here / "3.png").write_bytes(png(3))
    second = run_job(predictor, ["m.jsonl"], here / "out", together=2, resume=True)
    assert (second.counts.errors, second.counts.rows, second.resumed) == (0, 4, 2)


def test_a_damaged_part_is_made_anew(here, predictor):
    fill(here / "photos")
    run_job(predictor, ["photos"], here / "out", heatmaps=False)
    one, two, *_ = sorted((here / "out" / "predictions").iterdir())
    one.write_bytes(one.read_bytes()[:-20])
    two.write_bytes(b"")
    run_job(predictor, ["photos"], here / "out", resume=True, heatmaps=False)
    assert_equal(read_rows(here / "out"), local_lines(predictor, ["photos"]))


def test_other_jobs_are_refused_and_touch_nothing(here, predictor):
    fill(here / "photos")
    fill(here / "others", 3)
    run_job(predictor, ["photos"], here / "out", heatmaps=False)
    kept = {p: p.read_bytes() for p in (here / "out").rglob("*.*") if p.is_file()}

    def refused(match, sources=("photos",), resume=True, **options):
        with pytest.raises(ArtifactNetError, match=match):
            run_job(predictor, list(sources), here / "out", resume=resume, **options)
        assert {p: p.read_bytes() for p in kept} == kept

    refused("holds 5 parts of an earlier run; --resume continues it", resume=False, heatmaps=False)
    refused(r"other settings \(heatmaps=False, now True\); write to another folder")
    refused("none of its 5 parts is about these inputs", ["others"], heatmaps=False)
    refused("nothing: no such file", ["nothing"], heatmaps=False)
    (here / "out" / "predictions.settings.json").unlink()
    del kept[here / "out" / "predictions.settings.json"]
    refused("does not say how its answers were made", heatmaps=False)


def test_a_file_named_twice_is_predicted_once(here, predictor):
    (here / "t.tar").write_bytes(tar_of({"a.png": png(5)}))
    fill(here / "photos", 3)
    summary = run_job(predictor, ["t.tar", "./t.tar", "photos", "photos/*"], here / "out")
    assert summary.counts.rows == 4


def test_a_unit_that_killed_its_worker_is_done_image_by_image(here, predictor):
    fill(here / "photos", 5)
    job = job_of(predictor, ["photos"], here / "out", workers=2)
    plan = Plan(job, False)
    (unit,) = plan.units()
    told = []
    result = Worker(job, predictor).run(unit, Careful(frozenset({1, 3}), told.append))
    assert told == [0, 1, 2, 3, 4, 5]
    rows = read_rows(here / "out")
    assert [row["error"] for row in rows] == [None, DIED, None, DIED, None]
    assert [row["path"] for row in rows] == [f"photos/{k:03d}.png" for k in range(5)]
    assert result.counts.errors == 2
    lines = local_lines(predictor, ["photos"])
    for row in rows[::2]:
        assert row["probability"] == pytest.approx(lines[row["path"]]["probability"], abs=1e-6)


def test_a_language_model_is_the_same_on_every_device(here):
    """On a GPU it is loaded in bfloat16, and its adapters are merged in that."""
    (here / "run").mkdir()
    (here / "run" / "heie.json").write_text("{}")
    weights = here / "run" / "heie.safetensors"

    def job(dtype, content=b"weights", mode="generate"):
        weights.write_bytes(content)
        predictor = CannedPredictor()
        predictor.model, predictor.mode = torch.nn.Linear(2, 2).to(dtype), mode
        model = ModelChoice("run")
        return make_job(["x"], "out", model, predictor, predictor.options()).fingerprint

    same = job(torch.float32)
    assert job(torch.bfloat16) == same
    assert len({same, job(torch.float32, b"others"), job(torch.float32, mode="template")}) == 3


def test_answers_behind_a_url(here, predictor):
    files = fsspec.filesystem("memory")
    files.store.clear()
    for k in range(12):
        files.pipe(f"/in/{k:02d}.png", png(k))
    run_job(predictor, ["memory://in"], "memory://out/job", stop=1, together=4)
    run_job(predictor, ["memory://in"], "memory://out/job", resume=True, together=4)
    names = files.find("/out")
    assert sum("part-" in name for name in names) == len(names) - 2
    rows = [r for n in names if "part-" in n
            for r in pq.read_table(pa.BufferReader(files.cat(n))).to_pylist()]  # fmt: skip
    assert sorted(row["path"] for row in rows) == [f"memory://in/{k:02d}.png" for k in range(12)]
    assert Image.open(__import__("io").BytesIO(rows[0]["heatmap"])).size == (30, 20)
    files.store.clear()


def test_a_disk_that_is_full_leaves_no_part(here, predictor, monkeypatch):
    fill(here / "photos", 3)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    job = job_of(predictor, ["photos"], here / "out")
    plan = Plan(job, False)
    monkeypatch.setattr(parts.pq, "ParquetWriter", full)
    with pytest.raises(ArtifactNetError, match="answers cannot be written: .*No space left"):
        Worker(job, predictor).run(next(plan.units()))
    assert list((here / "out" / "predictions").iterdir()) == []


def test_names_that_are_no_text_are_spelled_out(here, predictor):
    with open(os.fsencode(str(here)) + b"/caf\xe9.png", "wb") as file:
        file.write(png(1))
    run_job(predictor, [here / "*.png"], here / "out")
    (row,) = read_rows(here / "out")
    assert row["path"] == f"{here}/caf\\udce9.png"


def test_large_answers_are_written_piece_by_piece(here, predictor, monkeypatch):
    fill(here / "photos", 5)
    monkeypatch.setattr(parts, "_BYTES", 1)
    run_job(predictor, ["photos"], here / "out")
    (part,) = (here / "out" / "predictions").iterdir()
    assert pq.read_metadata(part).num_row_groups == 5
    assert np.isfinite([row["probability"] for row in read_rows(here / "out")]).all()
