"""Exported files in place of models: pixels, foreign and damaged files, pickles, wrong use."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_exports import student

from artifactnet.data.transforms import Preprocess
from artifactnet.exporters.graph import facts_of
from artifactnet.exporters.onnx import with_metadata
from artifactnet.exporters.openvino import save_openvino
from artifactnet.inference.backends.exported import ExportedModel, load_exported, to_frames
from artifactnet.inference.backends.onnx import OnnxSession
from artifactnet.inference.backends.openvino import OpenvinoSession
from artifactnet.inference.backends.pt2 import METADATA, ProgramSession
from artifactnet.types import ArtifactNetError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def facts():
    return facts_of(student(size=(4, 6)), heatmap=False)


def onnx_file(path, metadata, size=(4, 6)):
    """The mean of each image, as someone else's converter would write it."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["logit"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["batch", *size, 3])],
        [helper.make_tensor_value_info("logit", kinds.FLOAT, ["batch"])],
        [helper.make_tensor("axes", kinds.INT64, [3], [1, 2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(with_metadata(model.SerializeToString(), metadata))
    return path


class Mean(torch.nn.Module):
    def forward(self, images):
        return (images.float().mean((1, 2, 3)),)


def program_file(path, facts):
    example = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    free = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Mean(), (example,), dynamic_shapes=(free,))
    extra = {METADATA: json.dumps(facts.to_strings())} if facts else {}
    torch.export.save(program, path, extra_files=extra)
    return path


def openvino_file(path, facts, tmp_path):
    source = onnx_file(tmp_path / "source.onnx", {})
    save_openvino(openvino.Core().read_model(str(source)), facts, path)
    return path


@pytest.fixture(params=["onnx", "xml", "pt2"])
def file(request, tmp_path, facts):
    path = tmp_path / f"mean.{request.param}"
    if request.param == "onnx":
        return onnx_file(path, facts.to_strings())
    if request.param == "pt2":
        return program_file(path, facts)
    return openvino_file(path, facts, tmp_path)


# --- pixels --------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_normalisation_is_undone_to_the_level(mean, std, seed):
    image = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor, _ = Preprocess((5, 7), "stretch", mean, std).image(image)
    frames = to_frames(tensor[None], mean, std)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[0], image)


def test_padding_becomes_the_mean_colour():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    tensor, _ = Preprocess((8, 8), "pad", mean, std).image(np.zeros((8, 4, 3), np.uint8))
    frame = to_frames(tensor[None], mean, std)[0]
    assert frame[0, 0].tolist() == [124, 116, 104]
    assert frame[0, 4].tolist() == [0, 0, 0]


# --- running ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_answers_of_any_batch(file, facts, count):
    images = torch.randn(count, 3, 4, 6)
    expected = to_frames(images, facts.mean, facts.std).reshape(count, -1).mean(1)
    output = load_exported(file, threads=1)(images)
    np.testing.assert_allclose(output.logit.numpy(), expected, rtol=1e-5)
    assert output.heatmap is None


def test_answers_outlive_the_next_call(file):
    exported = load_exported(file)
    first = exported(torch.zeros(1, 3, 4, 6)).logit
    kept = first.clone()
    exported(torch.ones(1, 3, 4, 6))
    assert torch.equal(first, kept)


def test_backend_goes_by_the_suffix(file):
    kinds = {".onnx": OnnxSession, ".xml": OpenvinoSession, ".pt2": ProgramSession}
    assert type(load_exported(file)._session) is kinds[file.suffix]


def test_it_looks_like_a_model(file, facts):
    exported = load_exported(file)
    assert (exported.image_size, exported.mean, exported.std) == ((4, 6), facts.mean, facts.std)
    assert not exported.has_attention
    assert not exported.has_segmentation
    assert not exported.has_heatmap
    assert exported.backbone.patch_size == 1
    assert not any(weight.requires_grad for weight in exported.parameters())


@pytest.mark.parametrize("what", ["attention", "segmentation", "heatmap"])
def test_what_it_lacks_is_refused(file, what):
    with pytest.raises(ArtifactNetError, match=f"an export without {what}"):
        load_exported(file)(torch.zeros(1, 3, 4, 6), **{what: True})


@pytest.mark.parametrize("shape", [(1, 3, 6, 4), (1, 3, 8, 12), (1, 1, 4, 6)])
def test_another_size_is_refused(file, shape):
    with pytest.raises(ArtifactNetError, match=r"takes images of \(3, 4, 6\), not"):
        load_exported(file)(torch.zeros(shape))


def test_threads_reach_the_runtimes(tmp_path, facts, monkeypatch):
    import onnxruntime

    seen = []
    honest = onnxruntime.InferenceSession

    def note(path, options, providers):
        seen.append(options.intra_op_num_threads)
        return honest(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    load_exported(onnx_file(tmp_path / "m.onnx", facts.to_strings()), threads=3)
    assert seen == [3]
    session = load_exported(openvino_file(tmp_path / "m.xml", facts, tmp_path), threads=2)._session
    assert session._compiled.get_property("INFERENCE_NUM_THREADS") == 2
    before = torch.get_num_threads()
    try:
        load_exported(program_file(tmp_path / "m.pt2", facts), threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_openvino_computes_in_full_precision(tmp_path, facts):
    """On processors with bfloat16 units its default would be another model."""
    session = load_exported(openvino_file(tmp_path / "m.xml", facts, tmp_path))._session
    precision = session._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert precision == openvino.Type.f32


@pytest.mark.parametrize("heatmap", [False, True])
def test_the_score_comes_with_every_verdict(heatmap):
    class Fixed:
        shape = (4, 6)
        facts = facts_of(student(size=(4, 6)))

        def run(self, frames):
            maps = np.full((len(frames), 1, 2), 0.5, np.float32)
            return [maps[:, 0, 0], maps, maps, np.float32([0.25] * len(frames))]

    output = ExportedModel(Fixed(), "x.onnx")(torch.zeros(2, 3, 4, 6), heatmap=heatmap)
    assert output.score.tolist() == [0.25, 0.25]
    assert (output.heatmap is not None) == (output.sigma is not None) == heatmap


def test_a_runtime_that_fails_is_named(facts):
    class Broken:
        shape = (4, 6)

        def run(self, frames):
            raise RuntimeError("\n  out of memory\nand more")

    Broken.facts = facts
    with pytest.raises(ArtifactNetError, match=r"^x.onnx: failed to run: out of memory$"):
        ExportedModel(Broken(), "x.onnx")(torch.zeros(1, 3, 4, 6))


# --- files from elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_a_foreign_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"theirs{suffix}"
    source = onnx_file(tmp_path / "theirs.onnx", {"author": "someone"})
    if suffix == ".xml":
        openvino.save_model(openvino.Core().read_model(str(source)), str(path))
    elif suffix == ".pt2":
        program_file(path, None)
    for backend in ("onnx", "openvino") if suffix == ".onnx" else (None,):
        with pytest.raises(ArtifactNetError, match=f"theirs{suffix}: not exported by ArtifactNet"):
            load_exported(path, backend)


def test_another_format_is_refused(file, monkeypatch):
    monkeypatch.setattr("artifactnet.inference.backends.metadata.FORMAT", "artifactnet-export-2")
    with pytest.raises(ArtifactNetError, match="artifactnet-export-1"):
        load_exported(file)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 9])
def test_damaged_files(tmp_path, suffix, content):
    (tmp_path / "m.bin").write_bytes(b"")
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(ArtifactNetError, match=rf"m{suffix}: ") as caught:
        load_exported(path)
    assert "\n" not in str(caught.value)


def test_half_a_file(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactNetError, match=rf"{file.name}: "):
        load_exported(file)


def test_weights_left_behind(tmp_path, facts):
    path = openvino_file(tmp_path / "m.xml", facts, tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ArtifactNetError, match=r"m.xml: its weights are missing.*m.bin"):
        load_exported(path)


def test_an_input_of_another_size_than_the_metadata(tmp_path, facts):
    path = onnx_file(tmp_path / "m.onnx", facts.to_strings(), size=(8, 6))
    with pytest.raises(ArtifactNetError, match=r"\(8, 6\).*\(4, 6\)"):
        load_exported(path)


@pytest.mark.parametrize(
    ("name", "backend", "threads", "message"),
    [
        ("m.onnx", "tensorrt", 0, "tensorrt"),
        ("m.pt2", "onnx", 0, "the onnx backend"),
        ("m.pt2", "openvino", 0, "the openvino backend"),
        ("m.onnx", None, -1, "threads"),
        ("m.onnx", None, 0, "^.*m.onnx: no such file"),
        ("m.txt", None, 0, "m.txt"),
    ],
)
def test_wrong_use(tmp_path, name, backend, threads, message):
    with pytest.raises(ArtifactNetError, match=message):
        load_exported(tmp_path / name, backend, threads)


@pytest.mark.parametrize(
    ("package", "name", "line"),
    [
        ("onnxruntime", "m.onnx", "pip install 'onnxruntime>="),
        ("openvino", "m.xml", "pip install 'openvino>="),
    ],
)
def test_a_missing_runtime_is_named(tmp_path, monkeypatch, package, name, line):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ArtifactNetError, match=line):
        load_exported(tmp_path / name)


# --- pickles ---------------------------------------------------------------------------------


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


def rewritten(path, change):
    """The archive with some parts changed: ``change`` gets names and contents."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts, next(iter(parts)).partition("/")[0])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def pickled(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_sample_inputs(parts, top):
    parts[f"{top}/data/sample_inputs/model.pt"] = pickled(Trap())


def in_constants(parts, top):
    parts[f"{top}/data/constants/opaque_obj_0"] = pickled(Trap())


def in_weights(parts, top):
    name = next(name for name in parts if name.endswith("weights_config.json"))
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    parts[name] = json.dumps({"config": {"w": entry}}).encode()
    parts[f"{top}/data/weights/weight_0"] = pickled(Trap())


def in_old_weights(parts, top):
    parts[f"{top}/data/weights/model.pt"] = pickled(Trap())


@pytest.mark.parametrize("change", [in_sample_inputs, in_constants, in_weights, in_old_weights])
def test_pickles_are_never_run(tmp_path, facts, change):
    path = program_file(tmp_path / "m.pt2", facts)
    rewritten(path, change)
    with pytest.raises(ArtifactNetError, match=r"m.pt2: holds pickled objects"):
        load_exported(path)


@pytest.mark.parametrize(
    "content", [b"[]", b"7", b'{"config": []}', b'{"config": {"w": 1}}', b"[" * 100_000, b"\xff"]
)
def test_a_table_of_weights_of_another_form_is_refused(tmp_path, facts, content):
    path = program_file(tmp_path / "m.pt2", facts)

    def spoil(parts, top):
        parts[next(name for name in parts if name.endswith("weights_config.json"))] = content

    rewritten(path, spoil)
    with pytest.raises(ArtifactNetError, match=r"m.pt2: not a readable .pt2 file: ") as caught:
        load_exported(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"[1]", b'{"format": 1}'])
def test_metadata_of_another_form_is_refused(tmp_path, facts, content):
    path = program_file(tmp_path / "m.pt2", facts)

    def spoil(parts, top):
        parts[next(name for name in parts if name.endswith("artifactnet.json"))] = content

    rewritten(path, spoil)
    with pytest.raises(ArtifactNetError, match=r"m.pt2: its metadata is damaged"):
        load_exported(path)
