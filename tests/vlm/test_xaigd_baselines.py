"""Language models on X-AIGD: parsing, truth, tables, files of answers, a tiny model."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import score_files
from PIL import Image
from score_files import row, square, write_labels

from artifactnet.cli import main
from artifactnet.metrics.category_boxes import CategoryBox
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.fakexplainer.grammar import is_strict
from artifactnet.vlm.xaigd.answers import read_instances, read_judgment, read_presence
from artifactnet.vlm.xaigd.baselines import (
    run_instances,
    run_judgment,
    run_masks,
    run_presence,
)
from artifactnet.vlm.xaigd.prompts import JUDGMENTS, instances_question, presence_question

TEXTURE, SYMBOL = "low-level-texture", "low-level-symbol"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"bbox_2d": [1, 2, 3, 4]}]', True),
        ("```json\n[[1, 2, 3, 4], [5, 6, 7, 8]]\n```", True),
        ("The box is [1, 2, 3, 4].", True),
        ('[{"bbox_2d": [900, 900, 10, 10]}]', True),  # however bad
        ("[]", False),
        ("Draft: [[1, 2, 3, 4]]\nFinal: []", False),
        ("<think>[[1, 2, 3, 4]]</think> []", False),
        ("[] Then again, [[1, 2, 3, 4]]", True),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", True),
        ("None.", False),
        ("There are no artifacts of this kind", False),
        ("There is no such artifact", False),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbo', True),  # cut off
        ("See [1] and [2]", None),
        ("I cannot say", None),
        ("<think>[]", None),
        ("", None),
    ],
)
def test_presence_is_read(text, expected):
    assert read_presence(text) is expected


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("general", "<verdict>generated</verdict>", True),
        ("general", "It looks fake. <verdict> Real </verdict>", False),
        ("general", "<verdict>real</verdict> or <verdict>generated</verdict>", None),
        ("general", "generated", None),
        ("fakevlm", "This is a fake image. The hand is odd.", True),
        ("fakevlm", "This is a real image.", False),
        ("fakevlm", "The colours are fake", None),
        ("fakereasoning", "Step 1 ... Therefore, this image is fake.", True),
        ("fakereasoning", "This image is real.", False),
        ("fakereasoning", "This image is real. No: this image is fake.", None),
    ],
)
def test_judgments_are_read(form, text, expected):
    assert read_judgment(text, form) is expected


def test_instances_are_read():
    text = (
        '{"bbox_2d": [100, 100, 500, 500], "category": "Symbols"}\n'
        '{"bbox_2d": [100, 100, 500, 500], "category": "symbols"}\n'
        '{"bbox_2d": [0, 0, 500, 500], "category": "low-level-texture"}\n'
        '{"bbox_2d": [0, 0, 500, 500], "category": "mood"}\n'
        '{"bbox_2d": [0, 0, 0, 500], "category": "symbols"}\n<verdict>generated</verdict>'
    )
    found, dropped = read_instances(text, (20, 10), (1000, 1000))
    assert found == [
        CategoryBox(SYMBOL, (2.0, 1.0, 10.0, 5.0)),
        CategoryBox(TEXTURE, (0.0, 0.0, 10.0, 5.0)),
    ]
    assert dropped == 2


def test_prompts_name_what_they_ask_for():
    asked = {presence_question(item, pixels=True) for item in CATEGORIES}
    assert len(asked) == 7
    assert all("in pixels of the image" in text for text in asked)
    assert "0 to 1000" in presence_question(CATEGORIES[0], pixels=False)
    for item in CATEGORIES:
        assert f"- {item.short}: " in instances_question(pixels=False)
    # both examples are read as what they show; the first is of an image of 644 x 476
    for pixels, size in ((True, (644, 476)), (False, (1000, 1000))):
        fake, real = instances_question(pixels).split("Answer about a real image:")
        for text, count in ((fake, 2), (real, 0)):
            form = text[text.rindex("<think>") : text.index("</verdict>") + len("</verdict>")]
            assert is_strict(form, size, "tags", "category")
            assert len(read_instances(form, size, size)[0]) == count


def rows():
    """Four images of 40 x 30 pixels: two of them show texture, one symbols."""
    return [
        row("flux", "a", 40, 30, square(TEXTURE, 0, 0, 20), square(SYMBOL, 20, 10, 10)),
        row("flux", "b", 40, 30, square(TEXTURE, 5, 5, 10), square(TEXTURE, 25, 5, 10)),
        row("sd", "a", 40, 30),
        row("sd", "b", 40, 30),
    ]


@pytest.fixture
def labels(tmp_path):
    return write_labels(tmp_path / "labels.parquet", rows())


@pytest.fixture
def with_images(tmp_path):
    """The labels with an image in each row."""
    schema = score_files.SCHEMA.append(pa.field("image", pa.binary()))
    found = []
    for number, one in enumerate(rows()):
        file = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        found.append({**one, "image": file.getvalue()})
    return write_labels(tmp_path / "images.parquet", found, schema)


@pytest.fixture
def real(tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for name in ("a", "b", "z"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def answers(tmp_path, *found):
    path = tmp_path / "given.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return path


def test_presence(labels, tmp_path):
    def line(generator, uid, category, text):
        return {"generator": generator, "uid": uid, "category": category, "answer": text}

    path = answers(
        tmp_path,
        line("flux", "a", TEXTURE, "[[1, 2, 3, 4]]"),
        line("flux", "b", "textures", "[]"),
        line("sd", "a", TEXTURE, "[[1, 2, 3, 4]]"),
        line("sd", "b", TEXTURE, "who knows"),
        line("flux", "a", SYMBOL, "[[1, 2, 3, 4]]"),
    )
    out = tmp_path / "out"
    found = run_presence([labels], out, path)
    texture = found["figures"]["categories"][TEXTURE]
    assert [texture[name] for name in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]
    assert texture["f1"] == 0.5
    assert texture["unreadable"] == 1
    assert (texture["prevalence"], texture["random_f1"]) == (0.5, 0.5)
    symbol = found["figures"]["categories"][SYMBOL]
    assert (symbol["f1"], symbol["prevalence"]) == (1.0, 0.25)
    assert symbol["random_f1"] == pytest.approx(1 / 3)
    assert found["figures"]["missing"] == 23
    assert found["warnings"] == ["23 questions have no answer and count as wrong"]
    page = (out / "results.md").read_text()
    assert "| textures | 50.0% | 50.0% | 50.0% | 50.0% | 50.0% | 1 |" in page
    assert json.loads((out / "results.json").read_text()) == found


@pytest.mark.parametrize(
    ("real_acc", "fake_acc", "mean"), [(43.7, 98.9, 71.3), (81.2, 39.7, 60.45)]
)
def test_worked_examples_of_the_mean(real_acc, fake_acc, mean):
    from artifactnet.metrics.confusion import verdict_scores

    right = round(real_acc * 10), round(fake_acc * 10)
    found = verdict_scores(tp=right[1], fp=1000 - right[0], tn=right[0], fn=1000 - right[1])
    assert found["balanced_accuracy"] * 100 == pytest.approx(mean)


def test_judgment(labels, real, tmp_path):
    path = answers(
        tmp_path,
        {"generator": "flux", "uid": "a", "answer": "This is a fake image."},
        {"generator": "flux", "uid": "b", "answer": "This is a real image."},
        {"generator": "sd", "uid": "a", "answer": "This is a fake image. This is a real image."},
        {"generator": "sd", "uid": "b", "answer": "This is a fake image."},
        {"generator": "real", "uid": "a", "answer": "This is a real image."},
    )
    found = run_judgment([labels], real, tmp_path / "out", path, "fakevlm")["figures"]
    # z is no photograph of an annotated uid; b has no answer
    assert (found["real"], found["fake"]) == (2, 4)
    assert (found["real_accuracy"], found["fake_accuracy"]) == (0.5, 0.5)
    assert (found["unreadable"], found["missing"]) == (1, 1)
    with pytest.raises(ArtifactNetError, match="no photograph of any annotated uid"):
        run_judgment([labels], tmp_path / "out", tmp_path / "out", path)


def test_instances(labels, tmp_path):
    def box(category, *corners):
        return json.dumps({"bbox_2d": corners, "category": category})

    half = box("symbols", 15, 10, 25, 20)  # half of it lies on the symbol
    path = answers(
        tmp_path,
        {"generator": "flux", "uid": "a", "answer": f"{box('textures', 0, 0, 20, 20)}\n{half}"},
        {"generator": "flux", "uid": "b", "answer": box("textures", 5, 5, 15, 15)},
        {"generator": "sd", "uid": "a", "answer": "<verdict>real</verdict>"},
    )

    def run(**more):
        return run_instances([labels], tmp_path / "out", path, unit="image", **more)

    found = run()["figures"]
    texture = found["categories"][TEXTURE]
    assert [texture[name] for name in ("TP", "FP", "FN")] == [2, 0, 1]
    assert texture["F1@0.5"] == pytest.approx(0.8)
    assert found["categories"][SYMBOL]["TP"] == 0
    assert (found["boxes"], found["dropped"], found["missing"]) == (3, 0, 1)
    page = tmp_path / "out" / "results.md"
    assert "if more than half of it lies" in page.read_text()
    assert run(inclusive=True)["figures"]["categories"][SYMBOL]["TP"] == 1
    assert "if at least half of it lies" in page.read_text()
    with pytest.raises(ArtifactNetError, match=r"given\.jsonl:1: what do its coordinates mean"):
        run_instances([labels], tmp_path / "out", path)


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("presence", [], "name one model: --model, or --vlm-url"),
        ("presence", ["--answers", "a.jsonl", "--model", "x"], "--model belongs to a model that"),
        ("presence", ["--answers", "a.jsonl", "--vlm-url", "http://x/v1"], "--vlm-url belongs to"),
        ("instances", ["--answers", "a.jsonl", "--max-tokens", "9"], "--max-tokens belongs to"),
        ("instances", ["--model", "x", "--coordinates", "image"], "--coordinates belongs to"),
        ("judgment", ["--real", ".", "--answers", "a.jsonl", "--question", "?"],
         "--question belongs to"),
        # of another task, or missing
        ("presence", ["--answers", "a.jsonl", "--real", "."], "unrecognized arguments: --real"),
        ("presence", ["--answers", "a.jsonl", "--form", "fakevlm"], "unrecognized arguments"),
        ("masks", ["--predictions", ".", "--model", "x"], "unrecognized arguments: --model"),
        ("masks", [], "required: --predictions"),
        ("judgment", ["--answers", "a.jsonl"], "required: --real"),
    ],
)  # fmt: skip
def test_no_option_is_ignored(tmp_path, capsys, task, options, said):
    command = ["benchmark-xaigd", task, "--labels", "x.parquet", "--out", str(tmp_path), *options]
    try:
        code = main(command)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_answers_that_were_cut_off_are_counted(labels, tmp_path):
    line = {"generator": "flux", "uid": "a", "answer": "<verdict>real</verdict>", "cut_off": True}
    path = answers(tmp_path, line)
    warned = run_instances([labels], tmp_path / "out", path, unit="image")["warnings"]
    assert warned[0] == "1 answers were cut off: they reached the limit of their length"
    path = answers(tmp_path, {**line, "cut_off": "yes"})
    with pytest.raises(ArtifactNetError, match=r"jsonl:1: 'cut_off' must be true or false"):
        run_instances([labels], tmp_path / "out", path)


def test_masks(labels, tmp_path, capsys):
    masks = tmp_path / "masks"
    hit = np.zeros((30, 40), bool)
    hit[:20, :20] = True
    score_files.write_mask(masks / "flux" / "a" / "0.png", hit)
    score_files.write_mask(masks / "real" / "a" / "0.png", hit)
    score_files.write_mask(masks / "real" / "b" / "0.png", np.zeros((30, 40), bool))
    found = run_masks([labels], masks, tmp_path / "out")
    figures = found["figures"]
    # 400 + 100 pixels in flux/a, 200 in flux/b
    assert figures["PixR"] == pytest.approx(400 / 700)
    assert figures["PixP"] == 1
    assert (figures["real_images"], figures["real_marked"]) == (2, 1)
    assert found["warnings"] == []
    command = ["benchmark-xaigd", "masks", "--labels", labels, "--out", str(tmp_path / "o")]
    assert main([*command, "--predictions", str(masks)]) == 0
    assert "| 57.1% | 100.0% | 57.1% |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"generator": "x", "uid": "a", "answer": "", "category": TEXTURE}, "no image x/a"),
        ({"generator": "sd", "uid": "a", "answer": "", "category": "mood"}, "unknown category"),
        ({"generator": "sd", "uid": "a", "answer": ""}, "'category' must be text"),
        ({"generator": "sd", "uid": "a", "category": TEXTURE}, "'answer' must be text"),
        ({"generator": "sd", "uid": "a", "mask": ""}, "unknown key 'mask'"),
        ([], "a JSON object"),
        ({"generator": "flux", "uid": "a", "answer": "", "category": "textures"},
         "given.jsonl:1 already"),
    ],
)  # fmt: skip
def test_wrong_answers_are_refused_with_their_place(labels, tmp_path, line, message):
    good = {"generator": "flux", "uid": "a", "category": TEXTURE, "answer": "[]"}
    path = answers(tmp_path, good, line)
    with pytest.raises(ArtifactNetError) as error:
        run_presence([labels], tmp_path / "out", path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_a_tiny_model_and_its_file_give_the_same_figures(with_images, real, tmp_path):
    tiny_mllm = pytest.importorskip("tiny_mllm")
    pytest.importorskip("peft", reason="needs the extra mllm")
    texts = [presence_question(item, pixels=True) for item in CATEGORIES]
    corpus = (*tiny_mllm.GRAMMAR, *[*texts, *JUDGMENTS.values(), instances_question(True)] * 2)
    base = tiny_mllm.save_qwen(tmp_path / "base", corpus=corpus)
    for task in ("presence", "judgment", "instances"):
        out = tmp_path / task
        command = ["benchmark-xaigd", task, "--labels", with_images, "--out", str(out)]
        command += ["--real", str(real)] if task == "judgment" else []
        asked = ["--model", str(base), "--device", "cpu", "--max-tokens", "4"]
        assert main([*command, *asked]) == 0
        found = json.loads((out / "results.json").read_text())
        count = {"presence": 28, "judgment": 6, "instances": 4}[task]
        lines = (out / "answers.jsonl").read_text().splitlines()
        assert len(lines) == count
        sizes = [json.loads(line).get("input_size") for line in lines]
        assert sizes == [[28, 28] if task == "instances" else None] * count
        command[command.index("--out") + 1] = str(tmp_path / "again")
        assert main([*command, "--answers", str(out / "answers.jsonl")]) == 0
        again = json.loads((tmp_path / "again" / "results.json").read_text())
        assert again["figures"] == found["figures"]


def test_a_server_that_refuses_everything_makes_no_table(
    with_images, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    out = tmp_path / "out"
    with serving(lambda request: Reply("no images", status=400)) as server:
        command = ["benchmark-xaigd", "instances", "--labels", with_images, "--vlm-url",
                   server.url, "--vlm-model", "big", "--out", str(out)]  # fmt: skip
        assert main(command) == 2
    assert "the server has refused every request so far" in capsys.readouterr().err
    assert not (out / "results.json").exists()


def test_reads_with_an_endpoint(with_images, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")

    def plan(request):
        return Reply("[[1, 2, 3, 4]]" if "letters" in request.text else "[]")

    with serving(plan) as server:
        command = ["benchmark-xaigd", "presence", "--labels", with_images, "--vlm-url",
                   server.url, "--vlm-model", "big", "--out", str(tmp_path / "out")]  # fmt: skip
        assert main(command) == 0
        assert len(server.requests) == 28
        assert main(command) == 0
        assert len(server.requests) == 28
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    symbol = found["figures"]["categories"][SYMBOL]
    assert (symbol["recall"], symbol["precision"]) == (1.0, 0.25)


def test_boxes_that_a_server_takes_for_thoughts_are_put_back(with_images, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="needs the extra endpoint")
    from chat_server import Reply, serving

    monkeypatch.setenv("OPENAI_API_KEY", "key")
    boxes = '{"bbox_2d": [0, 0, 500, 667], "category": "textures"}'

    def reply(content, thoughts):
        message = {"role": "assistant", "content": content, "reasoning_content": thoughts}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply(raw=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

    plan = [
        reply("<verdict>generated</verdict>", boxes),
        reply(f"{boxes}\n<verdict>generated</verdict>", f"Is it {boxes}?"),
        *[reply("<verdict>real</verdict>", f"Is it {boxes}?")] * 2,
    ]
    with serving(plan) as server:
        command = ["benchmark-xaigd", "instances", "--labels", with_images, "--batch-size", "1"]
        more = ["--vlm-url", server.url, "--vlm-model", "big", "--out", str(tmp_path / "out")]
        assert main([*command, *more]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["figures"]["boxes"] == 2
    texture = found["figures"]["categories"][TEXTURE]
    assert (texture["TP"], texture["FP"], texture["FN"]) == (1, 1, 2)
