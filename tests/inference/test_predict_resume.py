"""Interrupted predictions: what stays on disk, and what --resume makes of it."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from noise_images import put
from tiny_models import tiny

from artifactnet.files import staging_folder
from artifactnet.inference import answers
from artifactnet.inference.answers import AnswerLines
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.folder import Summary
from artifactnet.inference.folder import predict_to_folder as predict_files
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError

PARTIAL = Path("out/predictions.partial.jsonl")
FINISHED = Path("out/predictions.jsonl")
LONG = "图" * 82 + "x.png"
BYTES = os.fsdecode(b"caf\xe9.png")


@pytest.fixture
def photos(here):
    for number, name in enumerate(("a.png", "b/c.png", LONG, "line\nbreak.png", "z.png")):
        put(Path("photos", name), number)
    return "photos"


def predict_to_folder(*args, **options) -> Summary:
    """One image at a time: others of a batch change the last digit."""
    return predict_files(*args, **{"batch_size": 1, **options})


def lines(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_bytes().splitlines()]


def content(folder) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def hidden(folder) -> list[str]:
    return [str(path) for path in Path(folder).rglob(".*")]


class Stop:
    """Interrupts a run after so many predictions; notes them."""

    def __init__(self, after: int = 10**9, error=KeyboardInterrupt) -> None:
        self.after, self.error = after, error
        self.seen: list[str] = []

    def __call__(self, prediction) -> None:
        self.seen.append(prediction.path)
        if len(self.seen) == self.after:
            raise self.error


def interrupt(predictor, inputs, after=2, **options) -> Stop:
    stop = Stop(after)
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, inputs, "out", report=stop, **options)
    return stop


@pytest.mark.parametrize("after", [1, 2, 4, 5])
@pytest.mark.parametrize("options", [{}, {"heatmaps": False}, {"workers": 2}])
def test_a_resumed_run_is_like_one_without_interruption(photos, predictor, after, options):
    expected = predict_to_folder(predictor, [photos], "whole", **options)
    first = interrupt(predictor, [photos], after, **options)
    assert not FINISHED.exists()
    assert [line["path"] for line in lines(PARTIAL)] == first.seen
    assert hidden("out") == []
    rest = Stop()
    summary = predict_to_folder(predictor, [photos], "out", resume=True, report=rest, **options)
    assert first.seen + rest.seen == [line["path"] for line in lines("whole/predictions.jsonl")]
    assert (summary.images, summary.fakes) == (expected.images, expected.fakes)
    assert summary.resumed == after
    assert content("out") == content("whole")
    assert summary.warnings == []


def test_the_interruption_says_what_is_kept(photos, predictor):
    with pytest.raises(KeyboardInterrupt, match=r"3 predictions are in out/.*partial.*--resume"):
        predict_to_folder(predictor, [photos], "out", report=Stop(3))


def test_nothing_stays_where_nothing_was_predicted(photos, predictor, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "_answer_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, [photos], "out")
    assert content("out") == {}


@pytest.mark.parametrize("half", [b'{"path": "photos/b', b"{", b"\0\0\0\0", b'{"path": "x"}'])
def test_half_a_line_is_predicted_again(photos, predictor, half):
    predict_to_folder(predictor, [photos], "whole")
    interrupt(predictor, [photos], 2)
    with open(PARTIAL, "ab") as file:
        file.write(half)
    summary = predict_to_folder(predictor, [photos], "out", resume=True)
    assert summary.resumed == 2
    assert content("out") == content("whole")


@pytest.mark.parametrize(
    "damage", [b"\0\0\0\n", b"not json\n", b'["path"]\n', b'{"path": "photos/z.png"}\n']
)
def test_damaged_lines_are_counted_and_left_out(photos, predictor, damage):
    predict_to_folder(predictor, [photos], "whole")
    interrupt(predictor, [photos], 2)
    first, second = PARTIAL.read_bytes().splitlines(keepends=True)
    PARTIAL.write_bytes(first + damage + second)
    summary = predict_to_folder(predictor, [photos], "out", resume=True)
    assert summary.resumed == 2
    assert [w.split()[0] for w in summary.warnings] == ["1"]
    assert content("out") == content("whole")


def test_a_finished_run_has_nothing_to_do(photos, predictor):
    predict_to_folder(predictor, [photos], "out")
    before = {path: path.stat().st_mtime_ns for path in Path("out/heatmaps").rglob("*.png")}
    stop = Stop()
    summary = predict_to_folder(predictor, [photos], "out", resume=True, report=stop)
    assert stop.seen == []
    assert (summary.images, summary.resumed) == (5, 5)
    assert {path: path.stat().st_mtime_ns for path in Path("out/heatmaps").rglob("*.png")} == before


def test_new_images_join_a_finished_run_in_order(photos, predictor):
    predict_to_folder(predictor, [photos], "out")
    before = FINISHED.read_bytes()
    put("photos/0.png", 7)
    put("photos/b/b.png", 8)
    interrupt(predictor, [photos], 1, resume=True)
    assert FINISHED.read_bytes() == before  # until the end
    stop = Stop()
    predict_to_folder(predictor, [photos], "out", resume=True, report=stop)
    assert len(stop.seen) == 1
    predict_to_folder(predictor, [photos], "whole")
    assert content("out") == content("whole")


def test_changed_images_are_predicted_again(photos, predictor):
    interrupt(predictor, [photos], 5)
    put("photos/a.png", 99)  # another size
    os.utime("photos/b/c.png", (1, 1))  # another time
    stop = Stop()
    summary = predict_to_folder(predictor, [photos], "out", resume=True, report=stop)
    assert stop.seen == ["photos/a.png", "photos/b/c.png"]
    assert summary.resumed == 3
    assert "2 earlier predictions" in summary.warnings[0]
    predict_to_folder(predictor, [photos], "whole")
    assert content("out") == content("whole")


def test_a_lost_heatmap_is_made_again(photos, predictor):
    interrupt(predictor, [photos], 3)
    lost = lines(PARTIAL)[1]
    (Path("out") / lost["heatmap"]).unlink()
    stop = Stop()
    predict_to_folder(predictor, [photos], "out", resume=True, report=stop)
    assert lost["path"] in stop.seen
    predict_to_folder(predictor, [photos], "whole")
    assert content("out") == content("whole")


def test_images_that_are_gone_are_left_out(photos, predictor):
    interrupt(predictor, [photos], 4)
    Path("photos/a.png").unlink()
    summary = predict_to_folder(predictor, [photos], "out", resume=True)
    assert "photos/a.png" not in [line["path"] for line in lines(FINISHED)]
    assert (summary.images, len(lines(FINISHED))) == (4, 4)
    assert ["left out" in warning for warning in summary.warnings] == [True]


def test_an_image_given_twice_is_predicted_once(photos, predictor):
    inputs = [photos, "photos/a.png", os.path.abspath("photos/z.png")]
    interrupt(predictor, inputs, 2)
    predict_to_folder(predictor, inputs, "out", resume=True)
    assert len(lines(FINISHED)) == 5


def test_images_that_failed_are_tried_again(photos, predictor):
    Path("photos/a.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    assert len(predict_to_folder(predictor, [photos], "out").failures) == 1
    put("photos/a.png")
    stop = Stop()
    summary = predict_to_folder(predictor, [photos], "out", resume=True, report=stop)
    assert (stop.seen, summary.failures) == (["photos/a.png"], [])


# --- settings -----------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("options", [{"heatmaps": False}, {"min_area": 3}])
def test_other_options_are_refused(photos, predictor, options, finished):
    if finished:
        predict_to_folder(predictor, [photos], "out")
    else:
        interrupt(predictor, [photos])
    before = content("out")
    (key,) = options
    with pytest.raises(ArtifactNetError, match=f"other settings.*{key}=") as error:
        predict_to_folder(predictor, [photos], "out", resume=True, **options)
    assert "\n" not in str(error.value)
    assert content("out") == before


def test_another_model_is_refused(photos, predictor):
    interrupt(predictor, [photos])
    with pytest.raises(ArtifactNetError, match="other settings.*model="):
        predict_to_folder(Predictor(tiny(size=(32, 48))), [photos], "out", resume=True)
    predict_to_folder(predictor, [photos], "out", resume=True, workers=1, batch_size=3)


@pytest.mark.parametrize("change", ["weight", "threshold", "notice"])
def test_the_fingerprint_of_a_model(change):
    first, second = tiny(size=(32, 32)), tiny(size=(32, 32))
    second.load_state_dict(first.state_dict())
    assert model_fingerprint(Predictor(first)) == model_fingerprint(Predictor(second))
    if change == "weight":
        next(iter(second.parameters())).data.view(-1)[0] += 1e-3
    elif change == "threshold":
        second.config.threshold = 0.25
    else:
        second.notices = ("random",)
    assert model_fingerprint(Predictor(first)) != model_fingerprint(Predictor(second))


@pytest.mark.parametrize("settings", [None, b"", b"nothing", b"[]", b'{"answers": "other.jsonl"}'])
def test_unknown_settings_are_refused(photos, predictor, settings):
    interrupt(predictor, [photos])
    file = Path("out/predictions.settings.json")
    file.unlink()
    if settings is not None:
        file.write_bytes(settings)
    with pytest.raises(ArtifactNetError, match=r"partial\.jsonl: .*predictions\.settings\.json"):
        predict_to_folder(predictor, [photos], "out", resume=True)


def test_without_resume_a_run_starts_anew_and_says_so(photos, predictor):
    predict_to_folder(predictor, ["photos/z.png"], "out")
    before = FINISHED.read_bytes()
    interrupt(predictor, [photos])
    assert FINISHED.read_bytes() == before
    stop = Stop()
    summary = predict_to_folder(predictor, [photos], "out", report=stop)
    assert len(stop.seen) == 5
    assert [str(PARTIAL) in warning for warning in summary.warnings] == [True]
    assert not PARTIAL.exists()


def test_the_first_run_may_ask_to_resume(photos, predictor):
    assert predict_to_folder(predictor, [photos], "out", resume=True).resumed == 0
    assert len(lines(FINISHED)) == 5


def test_two_processes_do_not_write_to_one_folder(photos, predictor):
    with (
        staging_folder(Path("out/predictions.partial")),
        pytest.raises(ArtifactNetError, match="another process writes to out"),
    ):
        predict_to_folder(predictor, [photos], "out")


def test_leftovers_of_a_killed_run_are_removed(photos, predictor):
    """As after kill -9 while two pictures were being written."""
    interrupt(predictor, [photos])
    Path("out/predictions.partial").mkdir()
    Path("out/predictions.partial/abc.tmp").write_bytes(b"half")
    predict_to_folder(predictor, [photos], "out", resume=True)
    predict_to_folder(predictor, [photos], "whole")
    assert content("out") == content("whole")


# --- names and rows -----------------------------------------------------------------------


def test_bytes_that_are_no_text_are_recovered(here, predictor):
    put("photos/a.png")
    try:
        shutil.copy("photos/a.png", Path("photos", BYTES))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    interrupt(predictor, ["photos"], 1)
    predict_to_folder(predictor, ["photos"], "out", resume=True)
    FINISHED.read_bytes().decode("utf-8")
    (entry,) = [line for line in lines(FINISHED) if line["path"] != "photos/a.png"]
    assert os.fsencode(entry["path"]) == b"photos/caf\xe9.png"
    entry["heatmap"].encode("utf-8")
    assert Path("out", entry["heatmap"]).is_file()


def rows(path, count=4):
    images = []
    for number in range(count):
        put("row.png", number)
        images.append({"bytes": Path("row.png").read_bytes(), "path": None})
    pq.write_table(pa.table({"image": images, "label": [0] * count}), path, row_group_size=2)


def test_rows_of_shards_are_resumed(here, predictor):
    rows("s.parquet")
    interrupt(predictor, ["s.parquet"], 3)
    stop = Stop()
    predict_to_folder(predictor, ["s.parquet"], "out", resume=True, report=stop)
    assert stop.seen == ["s.parquet#3"]
    assert [line["path"] for line in lines(FINISHED)] == [f"s.parquet#{i}" for i in range(4)]
    assert {(line["generator"], line["uid"]) for line in lines(FINISHED)} == {
        ("s", str(i)) for i in range(4)
    }


# --- masks --------------------------------------------------------------------------------


@pytest.fixture
def segmenting(pixel_model):
    return Predictor(pixel_model((32, 32)))


@pytest.fixture
def marked(here, painted, put):
    for name in ("a", "b", "c" * 240, "d"):
        put(painted((0, 2, 3, 10, 9)), here / "g" / f"{name}.png")
    return "g"


@pytest.mark.parametrize("after", [1, 3, 4])
def test_masks_are_resumed(marked, segmenting, after):
    options = {"save_masks": True, "heatmaps": False}
    predict_to_folder(segmenting, [marked], "whole", **options)
    assert len(content("whole/masks")) == 8
    interrupt(segmenting, [marked], after, **options)
    assert not Path("out/masks").exists()
    # as of an image that was killed after its masks, before its line
    half = Path("out/masks.partial/category-agnostic/g/d")
    half.mkdir(exist_ok=True)
    (half / "mask.png").write_bytes(b"half")
    if after == 4:
        shutil.rmtree(half)
        shutil.copytree("whole/masks/category-agnostic/g/d", half)
    predict_to_folder(segmenting, [marked], "out", resume=True, **options)
    assert content("out") == content("whole")


def test_masks_of_a_finished_run_follow_its_images(marked, segmenting, painted, put):
    predict_to_folder(segmenting, [marked], "out", save_masks=True)
    Path("g/a.png").unlink()
    put(painted(), Path("g/b.png"))  # nothing to find any more
    put(painted((2, 0, 0, 30, 30)), Path("g/e.png"))
    predict_to_folder(segmenting, [marked], "out", resume=True, save_masks=True)
    predict_to_folder(segmenting, [marked], "whole", save_masks=True)
    names = [name for name in content("out") if not name.startswith("heatmaps/a.png")]
    assert {name: content("out")[name] for name in names} == content("whole")


@pytest.mark.parametrize("finished", [True, False])
def test_without_their_masks_images_are_predicted_again(marked, segmenting, finished):
    """A mask that is missing says that nothing was found."""
    if finished:
        predict_to_folder(segmenting, [marked], "out", save_masks=True)
        shutil.rmtree("out/masks")
    else:
        interrupt(segmenting, [marked], 2, save_masks=True)
        shutil.rmtree("out/masks.partial")
    summary = predict_to_folder(segmenting, [marked], "out", resume=True, save_masks=True)
    assert summary.resumed == 0
    assert ["not kept" in warning for warning in summary.warnings] == [True]
    predict_to_folder(segmenting, [marked], "whole", save_masks=True)
    assert content("out") == content("whole")


# --- many answers -------------------------------------------------------------------------


def test_lines_are_found_without_holding_them(tmp_path):
    """Also where two of them have one key, and where a path has several lines."""
    path = tmp_path / "x.jsonl"
    staging = tmp_path / "staging"
    staging.mkdir()
    entries = [{"path": f"{i % 2500}.png", "number": i, "text": "y" * 200} for i in range(3000)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "_key", lambda name: len(name))  # nearly all of them collide
        with AnswerLines(path, staging, {"a": 1}) as first:
            for entry in entries[:60]:
                first.append(entry)
        with AnswerLines(path, staging, {"a": 1}, resume=True) as again:
            assert all(again.find(e["path"])[1] == e for e in entries[:60])
            assert again.find("100.png") is None
    with AnswerLines(path, staging, {"a": 1}) as first:
        first.finish([first.append(entry) for entry in entries])
    with AnswerLines(path, staging, {"a": 1}, resume=True) as again:
        assert again.earlier == 3000
        assert again.find("7.png")[1]["number"] == 2507  # the last one counts
        assert again.find("2499.png")[1]["number"] == 2499
        assert again._index.offsets.nbytes + again._index._keys.nbytes == 16 * 3000
