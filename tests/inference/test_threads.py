"""One predictor in many threads: the answers of one thread, and the model left as it was."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np
import pytest
import torch
from tiny_detectors import state_of
from tiny_exports import pictures, student, traced_once
from tiny_models import tiny

from artifactnet.config import SegmentationConfig
from artifactnet.exporters.export import export_checked
from artifactnet.inference.backends.exported import load_exported
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError

THREADS = 6
FILES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}


def in_training(model):
    """Mixed flags, a gradient, and a hook that lets other threads run in the middle of a pass."""
    model.train()
    modules, weights = list(model.modules()), list(model.parameters())
    modules[len(modules) // 2].training = False
    weights[0].requires_grad_(False)
    weights[-1].grad = torch.ones_like(weights[-1])
    modules[len(modules) // 3].register_forward_hook(lambda *_: time.sleep(0.002))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("exported")
    model = student(size=(64, 64))
    with traced_once():
        for name in FILES.values():
            export_checked(model, folder / name, pictures(4))
    return folder


@pytest.fixture(
    scope="module",
    params=[
        *("vit", "segmentation", "heatmap head"),
        *(pytest.param(backend, marks=pytest.mark.slow) for backend in FILES),
    ],
)
def predictor(request):
    if request.param == "vit":
        return Predictor(in_training(tiny()))
    if request.param == "segmentation":
        head = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
        kwargs = {"embed_dim": 24, "depth": 4, "num_heads": 2}
        return Predictor(in_training(tiny(kwargs=kwargs, segmentation=head)))
    if request.param == "heatmap head":
        return Predictor(in_training(student(size=(64, 64))))
    folder = request.getfixturevalue("exported")
    return Predictor(load_exported(folder / FILES[request.param], request.param))


def at_once(works):
    """Results of all works, each in a thread of its own and started together."""
    start = threading.Barrier(len(works))

    def run(work):
        start.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def same(found, right):
    assert found.probability == pytest.approx(right.probability, abs=1e-5)
    assert found.is_fake == right.is_fake
    assert found.warnings == right.warnings
    np.testing.assert_allclose(found.heatmap, right.heatmap, atol=1e-4)


def test_predictions_of_every_kind_of_model(predictor):
    images = pictures(THREADS)
    right = [predictor.predict(image) for image in images]
    before = state_of(predictor.model)

    def single(k):
        return [predictor.predict(images[(k + j) % THREADS]) for j in range(THREADS)]

    def many(k):
        return predictor.predict([images[(k + j) % THREADS] for j in range(THREADS)], 1 + k)

    def stream(k):
        order = [images[(k + j) % THREADS] for j in range(THREADS)]
        return list(predictor.predict_stream(order, 2, workers=k % 3))

    kinds = (single, many, stream) * (THREADS // 3)
    found = at_once([lambda k=k: kinds[k](k) for k in range(THREADS)])
    for k, answers in enumerate(found):
        for j, answer in enumerate(answers):
            same(answer, right[(k + j) % THREADS])
    assert state_of(predictor.model) == before


def test_streams_take_turns_within_and_between_threads(predictor):
    """Each thread reads several streams, one answer of each in turn, and leaves one unfinished."""
    images = pictures(5)
    right = [predictor.predict(image) for image in images]
    before = state_of(predictor.model)

    def read(batch_size):
        left = predictor.predict_stream(images, batch_size, workers=1)
        next(left)
        streams = [predictor.predict_stream(images, batch_size, workers) for workers in (0, 2)]
        answers = list(zip_longest(*streams))
        left.close()
        return answers

    for found in at_once([lambda n=n: read(n) for n in (1, 2, 3, 4)]):
        assert len(found) == len(images)
        for pair, expected in zip(found, right, strict=True):
            for answer in pair:
                same(answer, expected)
    assert state_of(predictor.model) == before


def test_a_stream_begun_in_one_thread_ends_in_another(predictor):
    images = pictures(4)
    right = [predictor.predict(image) for image in images]
    stream = predictor.predict_stream(images, 1)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        found = [pool.submit(next, stream).result() for pool in (one, two, one, two)]
    for answer, expected in zip(found, right, strict=True):
        same(answer, expected)
    same(predictor.predict(images[0]), right[0])  # no lock is held by a thread that has ended


def test_one_thread_fails_and_the_others_do_not(predictor, tmp_path):
    images = pictures(3)
    right = [predictor.predict(image) for image in images]
    before = state_of(predictor.model)
    damaged = tmp_path / "a.png"
    damaged.write_bytes(b"no image")

    def fails():
        with pytest.raises(ArtifactNetError, match=r"a\.png"):
            predictor.predict([images[0], str(damaged), images[1]])
        first, second = predictor.predict_stream([str(damaged), images[0]], 2)
        assert isinstance(first, Failure)
        return [second]

    def works():
        return predictor.predict(images)

    for k, answers in enumerate(at_once([fails, works, fails, works, works])):
        for answer, expected in zip(answers, right if k in (1, 3, 4) else right[:1], strict=True):
            same(answer, expected)
    assert state_of(predictor.model) == before


def test_a_model_that_fails_is_left_as_found():
    """A pass that runs out of memory in one thread, while others predict."""
    model = in_training(tiny())
    predictor, image = Predictor(model), pictures(1)[0]
    right = predictor.predict(image)
    before = state_of(model)
    turn = threading.local()

    def fail(*_):
        if getattr(turn, "fails", False):
            raise RuntimeError("out of memory")

    handle = model.head.register_forward_hook(fail)

    def broken():
        turn.fails = True
        with pytest.raises(RuntimeError, match="out of memory"):
            predictor.predict(image)
        return right

    for answer in at_once([broken, lambda: predictor.predict(image)] * 3):
        same(answer, right)
    handle.remove()
    assert state_of(model) == before
