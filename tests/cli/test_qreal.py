"""``artifactnet qreal``: models of transformers, options, output, exit codes."""

import json
import shutil

import pytest
import tiny_grounding
import tiny_mllm
from chat_server import serving
from qreal_stubs import polite, save_images

from artifactnet.cli import _parser, main
from artifactnet.data.qreal import QUESTIONS, read_qreal
from artifactnet.vlm.open_vocabulary import OpenVocabularyDetector

pytest.importorskip("transformers")
STAGES = ("entities", "detect", "quality", "answers")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Options with a tiny Grounding DINO, which finds something everywhere, and a tiny Qwen."""
    folder = tmp_path_factory.mktemp("models")
    tiny_grounding.save_grounding(folder / "dino")
    tiny_mllm.save_qwen(folder / "qwen")
    return ["--detector", str(folder / "dino"), "--quality", str(folder / "qwen"),
            "--device", "cpu", "--threshold", "0", "--max-boxes", "8"]  # fmt: skip


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "images", 2)
    return tmp_path


def annotate(server, out, *words):
    options = ["--base-url", server.url, "--model", "eye"]
    return main(["qreal", "annotate", "images", "--out", out, *options, *words])


def test_stopped_after_every_stage_or_not_it_is_the_same(data, models, capsys):
    with serving(polite) as server:
        assert annotate(server, "whole.jsonl", *models) == 0
        asked = len(server.requests)
        said = capsys.readouterr()
        for stage in STAGES:
            assert annotate(server, "out.jsonl", *models, "--until", stage) == 0
        assert len(server.requests) == 2 * asked
    for end in (".jsonl", ".raw.jsonl"):
        assert (data / f"out{end}").read_bytes() == (data / f"whole{end}").read_bytes()
    images = read_qreal("out.jsonl")
    entities = [entity for image in images for entity in image.entities]
    assert asked == 2 + len(entities)
    assert len({entity.quality for entity in entities}) > 1
    lines = said.out.splitlines()
    assert lines[0].startswith("cost: 2 images: 2 calls for names, at most 192 for answers;")
    assert lines[-3:] == [
        f"{asked} answers, 0 invalid answers in all",
        f"{len(entities)} entities in 2 images, not verified by people",
        "whole.jsonl",
    ]
    assert "stopped after detect" in capsys.readouterr().out


def test_killed_while_grounding_dino_works_it_goes_on(data, models, monkeypatch, tmp_path_factory):
    """Two images with three names each; the fifth detection is where a kill would leave this."""
    detect, found = OpenVocabularyDetector.detect, []
    left = tmp_path_factory.mktemp("killed") / "data"

    def watched(self, image, name):
        if len(found) == 4:  # files as they are in the middle of the work
            shutil.copytree(data, left)
        found.append(name)
        return detect(self, image, name)

    monkeypatch.setattr(OpenVocabularyDetector, "detect", watched)
    with serving(polite) as server:
        assert annotate(server, "out.jsonl", *models) == 0
        assert len(found) == 6
        assert not (left / "out.jsonl").exists()
        lines = (left / "out.raw.jsonl").read_text().splitlines()
        assert len(lines) == 2 + 4  # names of both images, and four detections
        asked = len(server.requests)
        monkeypatch.chdir(left)
        assert annotate(server, "out.jsonl", *models) == 0
        assert len(found) == 6 + 2
        entities = sum(len(image.entities) for image in read_qreal("out.jsonl"))
        assert entities > 0
        assert len(server.requests) - asked == entities  # no name was asked for again
    for end in (".jsonl", ".raw.jsonl"):
        assert (left / f"out{end}").read_bytes() == (data / f"out{end}").read_bytes()


def test_more_than_a_thousand_calls_need_a_yes(data, models, capsys):
    save_images(data / "images", 80, (40, 40))
    words = [*models[:-2], "--until", "answers"]
    with serving(polite) as server:
        assert annotate(server, "out.jsonl", *words) == 2
        assert server.requests == []
        said = capsys.readouterr().err
        assert "at most 1040 calls are more than 1000; nothing was asked; add --yes" in said
        assert len(said.splitlines()) == 1
        assert annotate(server, "out.jsonl", *models[:-2], "--until", "entities", "--yes") == 0
    assert len(server.requests) == 80


def test_an_endpoint_that_is_down_is_one_line(data, models, capsys):
    words = [*models, "--retries", "0", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    assert main(["qreal", "annotate", "images", "--out", "out.jsonl", *words]) == 1
    said = capsys.readouterr()
    assert "2 could not be used:" in said.err
    assert "entities: http://127.0.0.1:9/v1, model m: asked once; connection failed" in said.err
    assert not (data / "out.jsonl").exists()


def test_a_detector_that_is_missing_is_one_line(data, models, capsys):
    with serving(polite) as server:
        words = ["--detector", str(data / "none"), "--quality", "none", "--device", "cpu"]
        assert annotate(server, "out.jsonl", *words) == 2
    said = capsys.readouterr().err
    assert f"error: detector {data / 'none'}: cannot be loaded" in said
    assert len(said.splitlines()) == 1


def test_a_detector_that_finds_nothing(data, models, capsys):
    with serving(polite) as server:
        words = [*models[:2], "--quality", "none", "--device", "cpu", "--threshold", "1"]
        assert annotate(server, "out.jsonl", *words) == 1
    assert "detect: no box, or only small ones, for violin, old man, cat" in capsys.readouterr().err
    rejected = (data / "out.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in rejected] == ["detect", "detect"]


def test_from_annotation_to_a_verified_file(data, models, capsys):
    with serving(polite) as server:
        words = [*models, "--quality", "none"]
        assert annotate(server, "q.jsonl", *words) == 0
    assert main(["qreal", "export-review", "q.jsonl", "review", "--annotators", "Ann,Bo,Cy"]) == 0
    assert "2 pages for 3 annotators" in capsys.readouterr().out
    head, *rows = (data / "review/review.csv").read_text().splitlines()
    good = {key: "No" if asked.defect else "Yes" for key, asked in QUESTIONS.items()}
    filled = [row + good[row.split(",")[2]] for row in rows]
    (data / "a.csv").write_text("\n".join([head, *filled]))
    merge = ["qreal", "merge-review", "q.jsonl", "--review", "a.csv", "--out", "done.jsonl"]
    assert main([*merge, "--texts", "review/texts.csv"]) == 0
    assert "verified by people" in capsys.readouterr().out
    images = read_qreal("done.jsonl")
    assert all(image.verified for image in images)
    assert not any(image.problems("plausibility") for image in images)
    (data / "a.csv").write_text("\n".join([head, *filled[:-1]]))
    assert main(merge) == 2
    said = capsys.readouterr().err
    assert "question plausibility_4: has the answers of 2 annotators, not of 3 (a.csv:" in said


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["annotate", "images", "--out", "o.jsonl", "--base-url", "u", "--model", "m"],
        ["annotate", "images", "--out", "o.jsonl", "--base-url", "u", "--model", "m",
         "--quality", "none", "--until", "boxes"],
        ["annotate", "images", "--out", "o.jsonl", "--base-url", "u", "--model", "m",
         "--quality", "none", "--threshold", "2"],
        ["export-review", "q.jsonl"],
        ["merge-review", "q.jsonl", "--out", "o.jsonl"],
    ],
)  # fmt: skip
def test_options_are_checked(words):
    with pytest.raises(SystemExit) as caught:
        _parser().parse_args(["qreal", *words])
    assert caught.value.code == 2


def test_debug_goes_before_and_after_the_command():
    words = ["export-review", "q.jsonl", "out"]
    for line in (["--debug", *words], [*words, "--debug"]):
        assert _parser().parse_args(["qreal", *line]).debug
    assert not _parser().parse_args(["qreal", *words]).debug
