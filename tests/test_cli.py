"""The command line: arguments, exit codes, and one clear line where something is wrong."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import score_files
import torch
import yaml
from PIL import Image

import artifactnet
from artifactnet.cli import main
from artifactnet.config import ModelConfig
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with a tiny saved model whose weights come with a notice."""
    torch.manual_seed(0)
    model = ArtifactNet(
        ModelConfig(
            backbone="vit_tiny_patch16_224",
            backbone_kwargs={"embed_dim": 32, "depth": 2, "num_heads": 2},
            image_size=[32, 32],
            pretrained="false",
        )
    )
    model.notices = ("these weights are random",)
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(model, folder / "model.safetensors")
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images and a broken one, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for i, name in enumerate(("photos/a.png", "photos/sub/a.jpg")):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    Path("photos/broken.png").write_bytes(b"nothing")
    return Path("photos")


def calls(monkeypatch, name: str) -> list[tuple[tuple, dict]]:
    """Calls of a public function, which is replaced by one that only takes notes."""
    made: list[tuple[tuple, dict]] = []
    monkeypatch.setitem(vars(artifactnet), name, lambda *a, **k: made.append((a, k)))
    return made


def fails(monkeypatch, name: str, error: BaseException) -> None:
    def function(*args, **kwargs):
        raise error

    if name in ("train", "evaluate", "distill"):
        monkeypatch.setattr(f"artifactnet.api.{name}", function)
    else:
        monkeypatch.setitem(vars(artifactnet), name, function)


# --- train, evaluate, synthesize ----------------------------------------------------------


def test_train_gets_the_config_with_overrides(monkeypatch):
    made = []
    monkeypatch.setattr("artifactnet.api.train", made.append)
    file = str(ROOT / "configs" / "dinov2_align.yaml")
    assert main(["train", file, "seed=7", "loss.alignment.weight=0.5"]) == 0
    (config,) = made
    assert isinstance(config, artifactnet.Config)
    assert (config.seed, config.loss.alignment.weight) == (7, 0.5)


def test_evaluate_gets_folder_and_overrides(monkeypatch):
    made = []
    monkeypatch.setattr("artifactnet.api.evaluate", lambda *a, **k: made.append((a, k)))
    assert main(["evaluate", "runs/x", "data.name=folder", "data.root=y"]) == 0
    assert made == [(("runs/x", ["data.name=folder", "data.root=y"]), {"text": None, "chat": None})]


def test_overrides_may_stand_behind_an_option(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr("artifactnet.api.evaluate", lambda *args, **_: seen.append(args))
    for words in (
        ["--debug", "data.root=a b", "data.limit=2"],
        ["data.root=a b", "--debug", "data.limit=2"],
        ["data.root=a b", "data.limit=2", "--debug"],
    ):
        assert main(["evaluate", "runs/a", *words]) == 0
        assert seen.pop() == ("runs/a", ["data.root=a b", "data.limit=2"])
    for words, wrong in ((["odd"], "odd"), (["--odd=1"], "--odd=1"), (["a=1", "b"], "a=1 b")):
        with pytest.raises(SystemExit):
            main(["evaluate", "runs/a", "--debug", *words])
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


def test_synthesize_writes_what_the_library_writes(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((240, 180), Image.Resampling.BICUBIC).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"nothing")
    photos, out = str(tmp_path / "photos"), tmp_path / "out"
    options = ["--size", "128", "--per-photo", "2", "--seed", "3", "--test-fraction", "0.4"]
    assert main(["synthesize", photos, str(out), *options]) == 0
    printed, told = capsys.readouterr()
    assert printed.startswith("3 photographs became ")
    assert "1 could not be used:" in told
    assert "broken.png" in told
    assert f"data.root={out}" in printed
    expected = artifactnet.synthesize(
        Path(photos), tmp_path / "again", size=128, per_photo=2, seed=3, test_fraction=0.4
    )
    assert sum(expected.counts.values()) == 6
    real = {p.name: p.read_bytes() for p in (out / "real").iterdir()}
    assert real == {p.name: p.read_bytes() for p in (tmp_path / "again" / "real").iterdir()}
    assert (out / "uid_splits.csv").read_text() == (tmp_path / "again/uid_splits.csv").read_text()


@pytest.mark.parametrize(
    ("extra", "size"), [([], 512), (["--size", "64"], 64), (["--full-size"], None)]
)
def test_synthesize_sizes(monkeypatch, extra, size):
    from artifactnet.data.synthetic.synthesize import Synthesis

    sizes = []

    def function(photos, out, **options):
        sizes.append(options["size"])
        return Synthesis(out)

    monkeypatch.setitem(vars(artifactnet), "synthesize", function)
    assert main(["synthesize", "photos", "out", *extra]) == 0
    assert sizes == [size]


TINY = [
    "model.backbone=vit_tiny_patch16_224",
    "model.backbone_kwargs={embed_dim: 32, depth: 2, num_heads: 2}",
    "model.image_size=[32, 32]",
    "model.stem=patch",
    "model.pretrained=false",
    "data.demo_train=4",
    "data.demo_val=2",
    "data.demo_test=2",
    "data.demo_size=48",
    "data.batch_size=4",
    "train.epochs=1",
    "train.tensorboard=false",
    "train.device=cpu",
]


@pytest.mark.slow
def test_the_whole_way(tmp_path, monkeypatch, capsys):
    """Train, evaluate, refuse to overwrite, predict: what the README shows, on a tiny model."""
    recipe = str(ROOT / "configs" / "toy_align.yaml")
    monkeypatch.chdir(tmp_path)
    assert main(["train", recipe, *TINY]) == 0
    printed = capsys.readouterr().out
    assert "artifactnet.load_model(" in printed
    run = Path("runs/toy_align")
    trained = json.loads((run / "results.json").read_text())
    assert trained["images"] == 4

    assert main(["train", recipe, *TINY]) == 2
    assert "overwrite=true" in capsys.readouterr().err

    assert main(["evaluate", str(run)]) == 0
    assert json.loads((run / "results.json").read_text()) == trained

    assert main(["predict", str(run / "pictures"), "--model", str(run), "--out", "answers"]) == 0
    entries = [json.loads(x) for x in Path("answers/predictions.jsonl").read_text().splitlines()]
    assert len(entries) == len(list((run / "pictures").glob("*.png"))) > 0
    probability = artifactnet.load_model(run).predict(entries[0]["path"]).probability
    assert entries[0]["probability"] == pytest.approx(probability, abs=1e-6)


# --- errors -------------------------------------------------------------------------------


def test_a_mistake_is_one_line(monkeypatch, capsys):
    fails(monkeypatch, "evaluate", ArtifactNetError("runs/x: not a run"))
    assert main(["evaluate", "runs/x"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "artifactnet: error: runs/x: not a run\n")


def test_debug_adds_the_traceback(monkeypatch, capsys):
    fails(monkeypatch, "evaluate", ArtifactNetError("runs/x: not a run"))
    assert main(["evaluate", "runs/x", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("artifactnet: error: runs/x: not a run\n")


def test_a_bug_keeps_its_traceback(monkeypatch):
    fails(monkeypatch, "evaluate", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "runs/x"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_disk_refuses(monkeypatch, capsys, number):
    fails(monkeypatch, "evaluate", OSError(number, "the disk refuses", "runs/x/results.json"))
    assert main(["evaluate", "runs/x"]) == 2
    err = capsys.readouterr().err
    assert "the disk refuses: 'runs/x/results.json'" in err
    assert err.count("\n") == 1


def test_interrupt(monkeypatch, capsys):
    fails(monkeypatch, "evaluate", KeyboardInterrupt())
    assert main(["evaluate", "runs/x"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["trian"], "trian"),
        (["train"], "CONFIG"),
        (["predict", "--model", "m", "--out", "o"], "IMAGES"),
        (["predict", "a", "--model", "m", "--out", "o", "--batch-size", "0"], "below 1"),
        (["predict", "a", "--model", "m", "--out", "o", "--workers", "-1"], "below 0"),
        (["predict", "a", "--model", "m", "--out", "o", "--batch-size", "x"], "batch-size"),
        (["synthesize", "photos"], "OUT"),
        (["score-pixels", "--labels", "x", "--predictions", "y", "--out", "z"], "--task"),
        (["score-pixels", "--task", "fine"], "invalid choice"),
        (["score-pixels", "--resize-size", "5", "5", "--resize-short-side", "5"], "not allowed"),
        (["score-pixels", "--center-crop", "5", "0"], "below 1"),
        (["score-instances", "--labels", "x", "--out", "z"], "--predictions"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert message in capsys.readouterr().err


def test_version_is_one_line(capsys):
    with pytest.raises(SystemExit) as info:
        main(["--version"])
    assert info.value.code == 0
    assert capsys.readouterr().out == f"artifactnet {artifactnet.__version__}\n"


def test_text_and_dictionaries_of_overrides(capsys):
    overrides = ["name=010", "data.root=/a b #2", "data.generators=[007,1.50]"]
    assert main(["config", "dinov2_align", *overrides, "model.backbone_kwargs={}"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["name"], printed["data"]["root"]) == ("010", "/a b #2")
    assert printed["data"]["generators"] == ["007", "1.50"]
    assert printed["model"]["backbone_kwargs"] == {}


@pytest.mark.parametrize("override", ["loss.alignement.weight=1", "train.epochs=many", "seed"])
def test_wrong_override_is_one_line(override, capsys):
    assert main(["config", str(ROOT / "configs" / "dinov2_align.yaml"), override]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("artifactnet: error: ")
    assert err.count("\n") == 1
    assert override.partition("=")[0] in err


# --- predict ------------------------------------------------------------------------------


def test_predict(run_folder, photos, capsys):
    arguments = ["predict", "photos", "--model", str(run_folder), "--out", "out"]
    assert main([*arguments, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    entries = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert [e["path"] for e in entries] == ["photos/a.png", "photos/sub/a.jpg"]
    assert all(0 <= e["probability"] <= 1 for e in entries)
    assert all(e["warnings"] == ["these weights are random"] for e in entries)
    assert all(Path("out", e["heatmap"]).is_file() for e in entries)
    assert "2 of 3 images predicted" in out
    for entry in entries:
        word = "fake" if entry["is_fake"] else "real"
        assert f"{entry['probability']:.4f} {word} {entry['path']}" in out
    assert "artifactnet: warning: these weights are random" in err
    assert "1 could not be used:" in err
    assert "photos/broken.png: not an image" in err


def test_predict_says_the_same_as_the_library(run_folder, photos):
    main(["predict", "photos/a.png", "--model", str(run_folder), "--out", "out"])
    entry = json.loads(Path("out/predictions.jsonl").read_text())
    answer = artifactnet.load_model(run_folder).predict("photos/a.png")
    assert entry["probability"] == pytest.approx(answer.probability, abs=1e-6)
    picture = np.asarray(Image.open(Path("out", entry["heatmap"])))
    assert picture.shape == answer.heatmap.shape


@pytest.mark.parametrize("extra", [[], ["--workers", "2"], ["--batch-size", "1"]])
def test_predict_options_change_no_answer(run_folder, photos, extra):
    main(["predict", "photos", "--model", str(run_folder), "--out", "plain"])
    main(["predict", "photos", "--model", str(run_folder), "--out", "other", *extra])
    plain, other = (
        [
            json.loads(x)["probability"]
            for x in Path(o, "predictions.jsonl").read_text().splitlines()
        ]
        for o in ("plain", "other")
    )
    assert plain == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([], "--out"),
        (["--json", "--save-masks"], "--save-masks needs --out"),
        (["--json", "--out", "o", "--resume"], "leave out --resume"),
    ],
)
def test_predict_options_that_do_not_fit(run_folder, photos, capsys, extra, said):
    assert main(["predict", "photos", "--model", str(run_folder), *extra]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not Path("o").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_predict_as_json_lines(run_folder, photos, capsys, workers):
    """They are the lines of predictions.jsonl, and standard output holds nothing else."""
    Path("photos/notes.txt").write_text("text")
    arguments = ["predict", "photos", "nowhere", "--model", str(run_folder), "--workers", workers]
    assert main([*arguments, "--out", "out", "--no-heatmaps"]) == 0
    written = Path("out/predictions.jsonl").read_text()
    told = capsys.readouterr().err
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == written
    (summary,) = re.findall(r"^2 of 4 images predicted.*called real\n", err, re.MULTILINE)
    assert err.replace(summary, "") == told
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["out", "photos"]


def test_predict_as_json_lines_beside_a_folder(run_folder, photos, capsys):
    arguments = ["predict", "photos", "--model", str(run_folder), "--json", "--out", "out"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == Path("out/predictions.jsonl").read_text()
    for line in out.splitlines():
        assert Path("out", json.loads(line)["heatmap"]).is_file()
    assert "2 of 3 images predicted" in err


def test_json_lines_of_an_image_in_a_pipe(run_folder, photos, monkeypatch, capsys):
    pipe(monkeypatch, Path("photos/a.png").read_bytes())
    assert main(["predict", "-", "--json", "--model", str(run_folder)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["path"], found["uid"], found["heatmap"]) == ("-", "stdin", None)
    expected = artifactnet.load_model(run_folder).predict("photos/a.png").probability
    assert found["probability"] == pytest.approx(expected, abs=1e-6)


def test_json_lines_where_no_image_works(run_folder, photos, capsys):
    arguments = ["predict", "photos/broken.png", "--json", "--stability"]
    assert main([*arguments, "--model", str(run_folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "0 of 1 images predicted" in err
    assert "the verdict flips between re-encodings of 0 images" in err


def pipe(monkeypatch, content: bytes) -> None:
    """Let standard input hold some content."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.mark.parametrize("name", ["photos/a.png", "photos/sub/a.jpg"])
def test_predict_and_explain_an_image_on_standard_input(run_folder, photos, monkeypatch, name):
    content, model = Path(name).read_bytes(), ["--model", str(run_folder)]
    pipe(monkeypatch, content)
    assert main(["predict", "-", "photos/a.png", "-", *model, "--out", "out"]) == 0
    lines = Path("out/predictions.jsonl").read_text().splitlines()
    entry, other = map(json.loads, lines)
    assert (entry["path"], entry["uid"], other["path"]) == ("-", "stdin", "photos/a.png")
    alone = artifactnet.load_model(run_folder).predict(name)
    assert entry["probability"] == pytest.approx(alone.probability, abs=1e-6)
    picture = np.asarray(Image.open(Path("out", entry["heatmap"])))
    assert picture.shape == alone.heatmap.shape
    pipe(monkeypatch, content)
    assert main(["explain", str(run_folder), "-", "--methods", "rollout", "--out", "maps"]) == 0
    explained = json.loads(Path("maps/explanations.jsonl").read_text())
    assert explained["path"] == "-"


def test_resuming_predicts_standard_input_anew(run_folder, photos, monkeypatch):
    arguments = ["predict", "-", "--model", str(run_folder), "--out", "out"]
    answers = []
    for name in ("photos/a.png", "photos/sub/a.jpg"):
        pipe(monkeypatch, Path(name).read_bytes())
        assert main([*arguments, *(["--resume"] if answers else [])]) == 0
        answers.append(json.loads(Path("out/predictions.jsonl").read_text())["probability"])
    expected = artifactnet.load_model(run_folder).predict("photos/sub/a.jpg").probability
    assert answers[1] == pytest.approx(expected, abs=1e-6)
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "standard input is empty"), (b"nothing", "not an image")]
)
def test_standard_input_without_an_image(run_folder, photos, monkeypatch, capsys, content, reason):
    pipe(monkeypatch, content)
    assert main(["predict", "-", "--model", str(run_folder), "--out", "out"]) == 1
    assert f"  -: {reason}" in capsys.readouterr().err


def test_no_standard_input_is_one_line(run_folder, photos, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", "-", "--model", str(run_folder), "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert "-: expected an image on standard input" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("images", ["photos/broken.png", "nowhere"])
def test_predict_where_no_image_works(run_folder, photos, images, capsys):
    assert main(["predict", images, "--model", str(run_folder), "--out", "out"]) == 1
    out, err = capsys.readouterr()
    assert "0 of 1 images predicted" in out
    assert f"  {images}: " in err


@pytest.mark.parametrize("model", ["nowhere", "photos", "photos/a.png"])
def test_predict_with_something_else_than_a_model(photos, model, capsys):
    assert main(["predict", "photos", "--model", model, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert model in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


# --- score-pixels, score-instances, benchmark -----------------------------------------------


EDGE = "low-level-edge_shape"


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Two annotated images, one with a perfect mask and a perfect box."""
    monkeypatch.chdir(tmp_path)
    rows = [score_files.row("g", "a", 6, 4, score_files.square(EDGE, 0, 0, 4))]
    rows.append(score_files.row("h", "a", 6, 4))
    score_files.write_labels("labels.parquet", rows)
    found = np.zeros((4, 6), bool)
    found[:, :4] = True
    score_files.write_mask("masks/g/a/0.png", found)
    score_files.write_mask(f"fine/g/{EDGE}/a/0.png", found)
    score_files.write_boxes("boxes.csv", [("g", "a", EDGE, 0, 0, 4, 4)])


PIXELS = ["score-pixels", "--labels", "labels.parquet", "--out", "all.csv"]
AGNOSTIC = [*PIXELS, "--predictions", "masks", "--task", "category-agnostic"]
INSTANCES = ["score-instances", "--labels", "labels.parquet", "--predictions", "boxes.csv"]


def test_score_pixels(scored, capsys):
    assert main([*AGNOSTIC, "--out-per-generator", "each.csv"]) == 0
    columns = "generator,task,category,IoU,PixP,PixR,PixF1,evaluated_images,zero_prediction_images"
    line = "category-agnostic,all,1.0,1.0,1.0,1.0"
    assert Path("all.csv").read_text() == f"{columns}\nall,{line},2,1\n"
    empty = "category-agnostic,all,0.0,0.0,0.0,0.0"
    assert Path("each.csv").read_text() == f"{columns}\ng,{line},1,0\nh,{empty},1,1\n"
    out = capsys.readouterr().out
    assert "IoU 1.0000" in out
    assert "2 images scored; tables in all.csv, each.csv" in out


def test_score_pixels_options(scored):
    """Each option reaches the scoring: a mask of 12x8 fits only the doubled ground truth."""
    found = np.zeros((8, 12), np.uint8)
    found[:, :8] = 100
    score_files.write_mask("masks/g/a/0.png", found)
    for size in (["--resize-size", "8", "12"], ["--resize-short-side", "8"]):
        assert main([*AGNOSTIC, *size, "--threshold", "99"]) == 0
        assert score_files.read_csv("all.csv")[0]["IoU"] == "1.0"
        assert main([*AGNOSTIC, *size, "--workers", "1"]) == 0
        assert score_files.read_csv("all.csv")[0]["zero_prediction_images"] == "2"
    score_files.write_mask("masks/g/a/0.png", found[2:6, 3:9])
    cropped = ["--resize-short-side", "8", "--center-crop", "4", "6", "--threshold", "99"]
    assert main([*AGNOSTIC, *cropped]) == 0
    assert score_files.read_csv("all.csv")[0]["IoU"] == "1.0"


def test_score_instances(scored, capsys):
    arguments = [*INSTANCES, "--out", "all.csv", "--out-per-generator", "each.csv"]
    assert main([*arguments, "--overlap-threshold", "0.9"]) == 0
    columns, first, *rest = Path("all.csv").read_text().splitlines()
    assert columns == (
        "generator,category,P@0.9,R@0.9,F1@0.9,TP,FP,FN,evaluated_images,"
        "zero_prediction_images,invalid_prediction_boxes"
    )
    assert first == f"all,{EDGE},1.0,1.0,1.0,1,0,0,2,1,0"
    assert len(rest) == 6
    assert len(score_files.read_csv("each.csv")) == 14
    assert "F1@0.9 1.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*PIXELS, "--predictions", "nowhere", "--task", "fine-grained"], "nowhere: no such"),
        (
            [
                *PIXELS,
                "--predictions",
                "masks",
                "--task",
                "category-agnostic",
                "--threshold",
                "256",
            ],
            "0 to 255",
        ),
        (
            [*AGNOSTIC, "--center-crop", "9", "9"],
            "labels.parquet#0 (g/a): a crop of 9x9 is larger",
        ),
        ([*INSTANCES, "--out", "masks"], "masks: is a folder"),
        ([*INSTANCES, "--out", "all.csv", "--overlap-threshold", "2"], "0 to 1"),
        ([*INSTANCES, "--out", "all.csv", "--out-per-generator", "all.csv"], "two files"),
    ],
)
def test_score_mistakes_are_one_line_and_write_nothing(scored, arguments, message, capsys):
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("artifactnet: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_benchmark_is_a_deprecated_alias(monkeypatch, capsys):
    ran = []

    def start(command):
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr("artifactnet.cli.benchmark.subprocess.run", start)
    options = ["metrics", "--out", "report.json", "--images", "3", "--help"]
    assert main(["benchmark", *options]) == 3
    assert ran == [[sys.executable, str(ROOT / "tools" / "benchmark.py"), *options]]
    assert "deprecated" in capsys.readouterr().err


# --- config, version ----------------------------------------------------------------------


def test_config_prints_what_would_run(capsys):
    assert main(["config", str(ROOT / "configs" / "dinov2_align.yaml"), "train.epochs=3"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["train"]["epochs"] == 3
    assert printed["name"] == "dinov2_align"


def test_printed_config_is_a_config(tmp_path, capsys):
    """What is printed can be saved and run again."""
    main(["config", str(ROOT / "configs" / "dinov2_align.yaml"), "optim.lr=0.125"])
    first = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(first)
    main(["config", str(tmp_path / "mine.yaml")])
    assert capsys.readouterr().out == first


def test_version(capsys):
    assert main(["version"]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert lines["artifactnet"] == artifactnet.__version__
    assert lines["torch"] == torch.__version__.partition("+")[0]


# --- as a program -------------------------------------------------------------------------


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_module_runs_as_a_program():
    done = program("-m", "artifactnet", "config", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("artifactnet: error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("tool", ["train", "evaluate", "predict", "synthesize"])
def test_tools_are_the_subcommands(tool):
    done = program(f"tools/{tool}.py", "--help", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert f"artifactnet {tool}" in done.stdout


def test_help_needs_no_heavy_package():
    code = (
        "import sys; from artifactnet.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = program("-c", code)
    assert done.stdout.splitlines()[-1] == "False"
    commands = "train evaluate predict explain judge report score-pixels score-instances synthesize"
    commands += " score-answers score-preference score-annotators"
    for command in (*commands.split(), "benchmark", "experiment", "config", "version"):
        assert re.search(rf"^ +{command}\b", done.stdout, re.MULTILINE)


def test_a_reader_that_leaves_is_no_error():
    """As in `artifactnet config dinov2_align | head -1`."""
    config = ROOT / "configs" / "dinov2_align.yaml"
    line = f'"{sys.executable}" -u -m artifactnet config "{config}" | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() in ("0", "141")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
