"""Explanations from many threads: the maps of one thread, and the network left as it was."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_detectors import SIZE, SmallCnn, state_of, timm_net
from tiny_models import TINY, tiny
from torch import nn

from artifactnet.config import HeatmapConfig, SegmentationConfig
from artifactnet.explanation.attention import ATTENTION_METHODS
from artifactnet.explanation.cam import CAM_METHODS
from artifactnet.explanation.detector import Classifier, full_precision
from artifactnet.explanation.explainer import Explainer, explain
from artifactnet.explanation.faithfulness import faithfulness
from artifactnet.explanation.sanity import randomized
from artifactnet.inference.predictor import Predictor
from artifactnet.models.state import evaluating, exclusive, undisturbed
from artifactnet.types import ArtifactNetError

THREADS = 6
WINDOWS = {"window": 24, "stride": 24}


def pictures(count, size=(40, 56), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def in_use(net):
    """A network in the middle of a training: mixed flags, a gradient, hooks, and slow.

    The hook lets other threads run in the middle of every forward pass.
    """
    net.train()
    modules, weights = list(net.modules()), list(net.parameters())
    modules[len(modules) // 2].training = False
    weights[0].requires_grad_(False)
    weights[-1].grad = torch.ones_like(weights[-1])
    for module in (modules[0], modules[-1], modules[len(modules) // 2]):
        module.register_forward_hook(lambda *_: time.sleep(0.001))
    return net


def at_once(works):
    """Results or errors of all works, each in a thread of its own and started together."""
    start = threading.Barrier(len(works))

    def run(work):
        start.wait()
        try:
            return work()
        except ArtifactNetError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def same_map(found, right):
    assert not isinstance(found, Exception), found
    assert found.warnings == right.warnings
    np.testing.assert_allclose(found.raw, right.raw, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(found.heatmap, right.heatmap, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(("cnn", method) for method in (*CAM_METHODS, "sliding_patch")),
        *(("vit", method) for method in (*ATTENTION_METHODS, "grad_cam")),
        ("resnet", "grad_cam"),
        ("swin", "grad_cam"),
        ("convnext", "layer_cam"),
    ],
)
def test_maps_of_a_network_that_is_being_trained(kind, method):
    net = in_use(SmallCnn() if kind == "cnn" else timm_net(kind))
    size = (16, 24) if kind == "cnn" else SIZE
    detector = Classifier(net, size)
    images = pictures(THREADS)
    right = [explain(detector, image, method, **WINDOWS) for image in images]
    before = state_of(net)
    # two detectors and many explainers around one network
    detectors = [detector, Classifier(net, size)] * THREADS
    found = at_once(
        [
            lambda k=k: explain(detectors[k], images[k], method, **WINDOWS)
            for k in range(len(images))
        ]
    )
    for one, expected in zip(found, right, strict=True):
        same_map(one, expected)
    assert state_of(net) == before


def test_our_models_explain_and_predict_at_once():
    """Every way to use one model, in every thread another."""
    segmentation = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
    kwargs = {**TINY, "depth": 4}
    model = in_use(tiny(kwargs=kwargs, segmentation=segmentation))
    images = pictures(3)
    methods = ("heatmap", "segmentation", "relevance", "gradient_rollout", "grad_cam")
    predictor = Predictor(model)
    works = [
        lambda method=method: [explain(model, image, method) for image in images]
        for method in methods
    ]
    works += [
        lambda: predictor.predict(images),
        lambda: list(predictor.predict_stream(images, 1, workers=2)),
        lambda: Predictor(model).predict(images, tiles=True),
    ]
    right = [work() for work in works]
    before = state_of(model)
    found = at_once(works)
    for number in range(len(methods)):
        for one, expected in zip(found[number], right[number], strict=True):
            same_map(one, expected)
    for number in range(len(methods), len(works)):
        for one, expected in zip(found[number], right[number], strict=True):
            assert one.probability == pytest.approx(expected.probability, abs=1e-6)
            np.testing.assert_allclose(one.heatmap, expected.heatmap, atol=1e-5)
    assert state_of(model) == before


def test_a_heatmap_head_and_its_backbone_as_a_network_of_its_own():
    """Two models that share layers wait for each other."""
    model = in_use(tiny("resnet18", (64, 64), kwargs={}, heatmap=HeatmapConfig(head="decoder")))
    shared = nn.Sequential(model.backbone.net, nn.Linear(model.backbone.num_features, 2))
    detector = Classifier(in_use(shared), (64, 64))
    images = pictures(3)
    works = [
        lambda: explain(model, images, "predicted_heatmap"),
        lambda: explain(detector, images, "grad_cam"),
        lambda: explain(detector, images, "eigen_cam"),
        lambda: explain(model, images, "predicted_heatmap", batch_size=1),
    ]
    right = [work() for work in works]
    before = state_of(model), state_of(shared)
    for found, expected in zip(at_once(works), right, strict=True):
        for pair in zip(found, expected, strict=True):
            same_map(*pair)
    assert (state_of(model), state_of(shared)) == before


def test_an_error_in_one_thread_disturbs_no_other():
    net = in_use(timm_net("resnet"))
    sound, image = Classifier(net, SIZE), pictures(1)[0]
    no_map = Classifier(net, SIZE, target_layer="fc")
    right = explain(sound, image, "grad_cam")
    before = state_of(net)
    works = [
        lambda detector=detector: explain(detector, image, "grad_cam")
        for detector in (sound, no_map) * 3
    ]
    found = at_once(works)
    for one in found[::2]:
        same_map(one, right)
    for one in found[1::2]:
        assert isinstance(one, ArtifactNetError)
        assert "target_layer" in str(one)
    assert state_of(net) == before


def test_a_network_that_fails_in_the_middle_is_left_as_found():
    """Not an error of ours: it passes through, and the next call is right."""
    net = in_use(SmallCnn())
    detector = Classifier(net, (16, 24))
    image = pictures(1)[0]
    right = explain(detector, image, "grad_cam")
    before = state_of(net)
    turn = threading.local()

    def fail(*_):
        if getattr(turn, "fails", False):
            raise RuntimeError("out of memory")

    handle = net.conv2.register_forward_hook(fail)

    def broken():
        turn.fails = True
        with pytest.raises(RuntimeError, match="out of memory"):
            explain(detector, image, "grad_cam")

    found = at_once([broken, lambda: explain(detector, image, "grad_cam")] * 3)
    for one in found[1::2]:
        same_map(one, right)
    handle.remove()
    assert state_of(net) == before


def test_explainers_curves_and_copies_at_once():
    """A copy that is made while a network is explained has none of the explanation's hooks."""
    net = in_use(timm_net("resnet"))
    for module in net.modules():
        module._forward_hooks.clear()
    detector = Classifier(net, SIZE)
    image = pictures(1)[0]
    heatmap = explain(detector, image, "grad_cam").heatmap
    right = faithfulness(detector, image, heatmap, steps=3)
    before = state_of(net)

    def copied():
        copies = [randomized(detector, seed).module for seed in range(4)]
        return [sum(len(m._forward_hooks) for m in one.modules()) for one in copies]

    def explained():
        for _ in range(4):
            Explainer(detector, ["grad_cam"]).explain_batch([("a", image)])

    def curves():
        return faithfulness(detector, image, heatmap, steps=3)

    found = at_once([copied, explained, curves, copied, explained])
    assert found[0] == found[3] == [0] * 4
    assert found[2].deletion == pytest.approx(right.deletion, abs=1e-6)
    assert found[2].insertion == pytest.approx(right.insertion, abs=1e-6)
    assert state_of(net) == before


def test_half_precision_is_copied_as_it_is_between_two_uses():
    net = in_use(copy.deepcopy(SmallCnn()).to(torch.bfloat16))
    flags = [module.training for module in net.modules()]

    def used():
        with undisturbed(net):
            time.sleep(0.05)

    def copied():
        time.sleep(0.01)
        return [module.training for module in full_precision(net).modules()]

    assert at_once([used, copied, copied])[1:] == [flags, flags]


@pytest.mark.parametrize("mode", [evaluating, undisturbed, exclusive])
def test_one_thread_at_a_time_unless_nothing_is_shared(mode):
    net, other = SmallCnn().train(), SmallCnn().train()
    inside, most = [], []

    def use(model):
        with mode(model), mode(model):  # a thread may enter twice
            inside.append(model)
            most.append(list(inside))
            time.sleep(0.01)
            inside.remove(model)

    whole = nn.Sequential(net)
    at_once([lambda m=m: use(m) for m in (net, whole, other, net.conv1, whole, other, net)])
    shared = [sum(model is not other for model in together) for together in most]
    assert max(shared) == 1
    assert any(other in together and len(together) > 1 for together in most)
    assert all(module.training for model in (net, other) for module in model.modules())


def test_locks_end_with_their_network():
    from artifactnet.models import state

    net = SmallCnn()
    with exclusive(net):
        held = len(state._LOCKS)
    count = sum(1 for _ in net.modules())
    del net
    assert len(state._LOCKS) <= held - count
