"""Every family of timm: it trains, explains and exports, or is refused by one line that helps."""

import re

import numpy as np
import pytest
import timm
import torch
from tiny_models import tiny

from artifactnet.config import AttentionConfig, SegmentationConfig
from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.explanation.explainer import explain
from artifactnet.exporters.graph import export_program, facts_of
from artifactnet.types import ArtifactNetError

SIZES = (96, 160, 224, 256)
# the smallest member of each family, or a small one that is usual
FAMILIES = [
    "vit_tiny_patch16_224",
    "vit_little_patch16_reg4_gap_256",
    "vit_tiny_r_s16_p8_224",
    "eva02_tiny_patch14_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_siglip_224",
    "beit_base_patch16_224",
    "vit_relpos_small_patch16_224",
    "convit_tiny",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "volo_d1_224",
    "tnt_s_legacy_patch16_224",
    "pit_ti_224",
    "coat_lite_tiny",
    "crossvit_tiny_240",
    "levit_128s",
    "gmlp_ti16_224",
    "resmlp_12_224",
    "twins_svt_small",
    "pvt_v2_b0",
    "mvitv2_tiny",
    "hiera_tiny_224",
    "test_coatnet",
    "test_maxvit",
    "gcvit_xxtiny",
    "nest_tiny",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_ns_224",
    "tiny_vit_5m_224",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "efficientvit_b0",
    "efficientvit_m0",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "fastvit_t8",
    "repvit_m0_9",
    "davit_tiny",
    "focalnet_tiny_srf",
    "poolformer_s12",
    "sequencer2d_s",
    "visformer_tiny",
    "inception_next_atto",
    "test_mambaout",
    "test_resnet",
    "resnetv2_18",
    "test_convnext",
    "test_efficientnet",
    "mobilenetv3_small_050",
    "regnetx_002",
    "densenet121",
    "dla46x_c",
    "cs3darknet_focus_s",
    "test_byobnet",
    "test_nfnet",
    "ghostnet_050",
    "hrnet_w18_small",
    "rexnet_100",
    "vgg11",
    "starnet_s050",
    "ese_vovnet19b_slim_dw",
    "legacy_seresnet18",
    "skresnet18",
    "res2net50_26w_4s",
    "hgnetv2_b0",
    "lcnet_050",
    "inception_v3",
    "dpn48b",
]
SAMPLE = [
    "test_resnet",
    "test_maxvit",
    "convit_tiny",
    "levit_128s",
    "hrnet_w18_small",
    "pit_ti_224",
]
CAM = AttentionConfig(method="grad_cam")
PICTURE = np.random.default_rng(0).integers(0, 255, (80, 72, 3), dtype=np.uint8)


def build(name, size, kwargs=None, **config):
    attention = config.pop("attention", CAM)
    return tiny(name, size=(size, size), kwargs=kwargs or {}, attention=attention, **config)


def train_once(model):
    """One step on two images; the loss falls on the map as well, where there is one.

    Where batch normalization sees two single values, the gradient of random weights can be of any
    size (inception_v3 at 96x96), so it is clipped, as by ``optim.clip_norm``.
    """
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    images = torch.randn(2, 3, *model.image_size, generator=torch.Generator().manual_seed(1))
    output = model(images, attention=model.has_attention, create_graph=model.has_attention)
    loss = output.logit.square().sum()
    if model.has_attention:
        loss = loss + output.heatmap.mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    optimizer.step()
    assert loss.isfinite()
    assert norm > 0
    model.eval().zero_grad()


def check_refusal(name, size, error):
    """One line, and a size that it names is accepted."""
    message = str(error)
    assert "\n" not in message
    assert f"{size}x{size}" in message
    named = [int(a) for a, b in re.findall(r"(\d+)x(\d+)", message.split(";")[-1]) if a == b]
    assert named
    build(name, named[0])


def check_family(name, sizes, export=True):
    built = False
    for size in sizes:
        try:
            model = build(name, size)
        except ArtifactNetError as error:
            check_refusal(name, size, error)
            continue
        with torch.no_grad():
            output = model(torch.zeros(1, 3, size, size), attention=model.has_attention)
        assert output.logit.shape == (1,)
        assert model.has_attention or model.no_attention
        if built:
            continue
        built = True
        train_once(model)
        explanation = explain(model, PICTURE)
        assert explanation.heatmap.shape == (80, 72)
        if not export:
            continue
        facts = facts_of(model, heatmap=False)
        program = export_program(model, facts)
        frames = torch.randint(0, 255, (3, size, size, 3), dtype=torch.uint8)
        with torch.no_grad():
            exported = program.module()(frames)[0]
            mean, std = (torch.tensor(x)[:, None, None] for x in (model.mean, model.std))
            expected = model((frames.permute(0, 3, 1, 2) / 255 - mean) / std).logit
        torch.testing.assert_close(exported, expected, atol=1e-3, rtol=1e-3)
    assert built


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_works_or_is_refused_at_every_size(name):
    check_family(name, SIZES)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_families_works(name):
    check_family(name, (96,), export=name == "test_resnet")


SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "kwargs", "size", "wanted"),
    [
        ("vit_tiny_patch16_224", SMALL, 100, "96x96 and 112x112"),
        ("vit_base_patch16_siglip_224", SMALL, 120, "112x112 and 128x128"),
        ("beit_base_patch16_224", SMALL, 90, "80x80 and 96x96"),
        ("test_coatnet", {}, 100, "96x96 and 128x128"),
    ],
)
def test_a_size_that_does_not_fit_names_those_that_do(name, kwargs, size, wanted):
    with pytest.raises(ArtifactNetError) as caught:
        build(name, size, kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert f"model.image_size {size}x{size}" in message
    assert wanted in message


@pytest.mark.parametrize(
    ("key", "name"), [("drop_path_rate", "vgg11"), ("drop_path_rate", "dla46x_c")]
)
def test_a_rate_that_the_class_does_not_have_is_refused(key, name):
    with pytest.raises(ArtifactNetError, match=rf"model\.{key} is 0\.1, but {name} has none"):
        build(name, 64, **{key: 0.1})


POOLED = {
    "vit_base_patch16_siglip_224": SMALL,
    "vit_little_patch16_reg4_gap_256": SMALL,
    "vit_tiny_patch16_224": {**SMALL, "global_pool": "avg", "class_token": False},
    "vit_small_patch14_dinov2": {**SMALL, "global_pool": "avg"},
}


@pytest.mark.parametrize("name", POOLED)
def test_a_vit_that_averages_its_patches_has_a_grad_cam(name):
    """Cell (y, x) of the map is token y * w + x: the map of the tokens' own gradient."""
    size = 56 if "14" in name else 48
    model = build(name, size, POOLED[name])
    images = torch.randn(2, 3, size, size)
    output = model(images, attention=True)
    cells = size // (14 if "14" in name else 16)
    assert model.grid == output.attention.shape[1:] == (cells, cells)
    tokens = model.backbone.net.forward_features(images).detach().requires_grad_()
    logit = model.head(model.backbone.pool(tokens))
    (gradient,) = torch.autograd.grad(logit.sum(), tokens)
    start = tokens.shape[1] - cells**2
    weights = gradient[:, start:].mean(1, keepdim=True)
    expected = (weights * tokens[:, start:]).sum(2).relu().reshape(2, cells, cells)
    torch.testing.assert_close(output.attention, expected, atol=1e-6, rtol=1e-4)
    train_once(model)
    assert explain(model, PICTURE).heatmap.shape == (80, 72)


def test_a_vit_with_a_class_token_says_what_gives_a_map():
    model = build("vit_tiny_patch16_224", 48, SMALL)
    assert "model.attention.method=rollout" in model.no_attention
    model = build("vit_base_patch16_siglip_224", 48, SMALL, attention=AttentionConfig())
    assert "model.attention.method=grad_cam" in model.no_attention
    model = build("convit_tiny", 96)
    assert "model.backbone_kwargs.global_pool=avg" in model.no_attention
    averaging = build("convit_tiny", 96, {"global_pool": "avg"})
    assert averaging.grid == (6, 6)


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_little_patch16_reg4_gap_256"])
def test_a_vit_without_class_token_segments(name):
    pytest.importorskip("mmseg")
    head = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
    model = build(name, 48, {**SMALL, "depth": 4}, segmentation=head)
    output = model(torch.randn(2, 3, 48, 48), segmentation=True, attention=True)
    assert output.segmentation.shape[:2] == (2, 8)
    assert output.attention.shape == (2, 3, 3)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_a_vit_behind_a_resnet_takes_its_grid_from_the_model(size):
    name = "vit_tiny_r_s16_p8_224"
    small = {"depth": 2}
    model = tiny(name, size=size, kwargs=small)
    grid = (size[0] // 32, size[1] // 32)
    assert model(torch.randn(1, 3, *size), attention=True).attention.shape[1:] == grid
    assert model.grid == grid
    net = timm.create_model(name, num_classes=2, img_size=size, **small).eval()
    for detector in (Classifier(net, size), OwnDetector(model)):
        for method in (None, "rollout", "grad_cam"):
            found = explain(detector, PICTURE, method)
            assert found.heatmap.shape == (80, 72)
            assert method == "grad_cam" or found.raw.shape == grid


def test_a_table_of_positions_that_is_too_short_is_found():
    """Shapes alone do not show it: the index is computed."""
    model = build("mvitv2_tiny", 256)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 256, 256)).logit.shape == (1,)


def test_trying_a_model_leaves_it_and_the_random_numbers_alone():
    torch.manual_seed(5)
    levit = build("levit_128s", 96)
    assert not any(getattr(m, "attention_bias_cache", None) for m in levit.backbone.net.modules())
    before = torch.get_rng_state()
    torch.manual_seed(5)
    again = build("levit_128s", 96)
    assert torch.equal(torch.get_rng_state(), before)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in levit.state_dict().items())
