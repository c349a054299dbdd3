"""mmsegmentation's own modules, with random weights, against ours after conversion."""

import re
import shlex
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from artifactnet.config import LoraConfig, ModelConfig, SegmentationConfig
from artifactnet.models.create import create_model
from artifactnet.models.heads import upernet
from artifactnet.models.mmseg_checkpoint import convert, is_mmseg, load_mmseg, read
from artifactnet.types import ArtifactNetError

WIDTHS = [24, 48, 96, 192]
DEPTHS, HEADS = [2, 2, 4, 2], [1, 2, 4, 8]
CHANNELS, AUXILIARY_CHANNELS = 32, 16
TOLERANCE = 1e-4
# whole windows; not square; no multiple of the windows; no multiple of the patches; tiny
SIZES = [(224, 224), (160, 256), (100, 132), (101, 133), (64, 32)]
SWIN = {"embed_dim": 24, "depths": DEPTHS, "num_heads": HEADS, "always_partition": True}


def randomize(module):
    """Every parameter and running statistic, so that none can be swapped unnoticed."""
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.ndim == 1 and name.endswith("weight"):  # of a norm
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.normal_(std=0.3 if tensor.ndim == 1 else 1.5 / tensor[0].numel() ** 0.5)
        if name.endswith("relative_position_bias_table"):
            tensor.normal_()


@pytest.fixture(scope="module")
def theirs():
    """mmsegmentation's Swin, UPerNet and FCN as its published configs build them."""
    upernet.uper_head(WIDTHS, 8, 8, 0.0)  # imports mmseg, with the placeholder if need be
    from mmseg.models.backbones import SwinTransformer
    from mmseg.models.decode_heads import FCNHead, UPerHead

    torch.manual_seed(0)
    common = {"dropout_ratio": 0.1, "num_classes": 8, "norm_cfg": {"type": "BN"}}
    common["align_corners"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mmseg about its own losses
        levels = {"in_channels": WIDTHS, "in_index": [0, 1, 2, 3], "pool_scales": (1, 2, 3, 6)}
        main = UPerHead(channels=CHANNELS, **levels, **common)
        level = {"in_channels": WIDTHS[2], "in_index": 2, "num_convs": 1, "concat_input": False}
        auxiliary = FCNHead(channels=AUXILIARY_CHANNELS, **level, **common)
    backbone = SwinTransformer(embed_dims=24, depths=DEPTHS, num_heads=HEADS, window_size=7)
    parts = {"backbone": backbone, "decode_head": main, "auxiliary_head": auxiliary}
    state = {}
    for part, module in parts.items():
        randomize(module)
        module.eval()
        state |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    return SimpleNamespace(**parts, state=state)


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("mmseg") / "upernet_swin.pth"
    torch.save({"meta": {"mmseg_version": "1.2.2"}, "state_dict": theirs.state}, path)
    return path


def model(size=(224, 224), seed=1, segmentation=None, kwargs=None, **config):
    torch.manual_seed(seed)
    heads = SegmentationConfig("upernet", CHANNELS, AUXILIARY_CHANNELS)
    config = {"backbone": "swin_tiny_patch4_window7_224", "pretrained": "false", **config}
    config |= {"backbone_kwargs": SWIN if kwargs is None else kwargs, "image_size": list(size)}
    return create_model(ModelConfig(**config, segmentation=segmentation or heads)).eval()


@pytest.fixture(scope="module")
def ours(file):
    net = model()
    assert load_mmseg(net, file) == []
    return net


def levels_of(net, images):
    return net.segmentation.pyramid(net.backbone.features(images, pyramid=True)[1])


def largest_difference(a, b):
    assert a.shape == b.shape
    assert b.std() > 0.1  # a difference could be seen
    return (a - b).abs().max().item()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_features_and_logits_are_mmsegs(theirs, ours, size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs.backbone(images)
        levels = levels_of(ours, images)
        found = [*levels, ours.segmentation.main(levels), ours.segmentation.auxiliary(levels)]
        pooled = expected[3].mean((2, 3))  # the last level's norm is the backbone's own
        assert (ours.backbone(images) - pooled).abs().max() <= TOLERANCE
        expected += [theirs.decode_head(expected), theirs.auxiliary_head(expected)]
        differences = [largest_difference(a, b) for a, b in zip(found, expected, strict=True)]
        assert torch.equal(ours(images, segmentation=True).segmentation, found[4])
    assert max(differences) <= TOLERANCE


@pytest.mark.parametrize("size", [(64, 64), (512, 384)], ids=str)
def test_the_models_own_size_does_not_matter(theirs, file, size):
    net = model(size)
    load_mmseg(net, file)
    images = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = theirs.decode_head(theirs.backbone(images))
        found = net(images, segmentation=True).segmentation
    assert largest_difference(found, expected) <= TOLERANCE


def test_model_weights_names_such_a_file(ours, file):
    """What a config does: the heads are filled as well, and nothing is announced as random."""
    net = model(weights=str(file))
    state = net.state_dict()
    same = {k for k, v in ours.state_dict().items() if torch.equal(v, state[k])}
    assert set(state) - same <= {"head.weight", "head.bias"}
    assert net.notices == ()


def test_adapters_are_added_around_the_loaded_weights(ours, file):
    pytest.importorskip("peft")
    net = model(weights=str(file), lora=LoraConfig(rank=2, target_modules=["qkv"]))
    state = {k.replace(".base_layer", ""): v for k, v in net.state_dict().items()}
    assert any(".lora_" in key for key in state)
    for key, value in ours.state_dict().items():
        assert key.startswith("head.") or torch.equal(state[key], value), key


AUTHORS_NAMES = {"backbone.stages.": "backbone.layers.", "projection": "proj", "w_msa.": ""}
AUTHORS_NAMES |= {"ffn.layers.0.0": "mlp.fc1", "ffn.layers.1": "mlp.fc2"}


def authors_names(state):
    """The state as the authors' segmentation code names and orders it."""
    out = {}
    for name, tensor in state.items():
        if ".downsample." in name:
            width = tensor.shape[-1] // 4
            reordered = torch.empty_like(tensor)
            # the authors concatenate x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]
            for q, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
                for c in range(width):
                    reordered[..., q * width + c] = tensor[..., 4 * c + 2 * row + column]
            tensor = reordered
        for theirs, authors in AUTHORS_NAMES.items():
            name = name.replace(theirs, authors)
        out[name] = tensor
    return out


def test_the_authors_own_checkpoint_gives_the_same_model(theirs, ours, tmp_path):
    state = authors_names(theirs.state)
    assert "backbone.layers.0.downsample.reduction.weight" in state
    assert is_mmseg(state)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "authors.pth")
    net = model(seed=5)
    assert load_mmseg(net, tmp_path / "authors.pth") == []
    found, expected = net.state_dict(), ours.state_dict()
    for name in expected:
        assert name.startswith("head.") or torch.equal(found[name], expected[name]), name


def test_other_classes_leave_only_the_last_layers_fresh(theirs, tmp_path):
    state = dict(theirs.state)
    for head, width in [("decode_head", CHANNELS), ("auxiliary_head", AUXILIARY_CHANNELS)]:
        state[f"{head}.conv_seg.weight"] = torch.zeros(150, width, 1, 1)
        state[f"{head}.conv_seg.bias"] = torch.zeros(150)
    torch.save(state, tmp_path / "ade20k.pth")
    net = model()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    lines = load_mmseg(net, tmp_path / "ade20k.pth")
    heads = [re.search(r"segmentation\.(\w+)\.conv_seg", line)[1] for line in lines]
    assert heads == ["main", "auxiliary"]
    assert all("150 classes in the file, 8 here" in line for line in lines)
    after, converted = net.state_dict(), convert(theirs.state)
    for name, value in after.items():
        fresh = ".conv_seg." in name or name.startswith("head.")
        assert torch.equal(value, before[name] if fresh else converted[name]), name


def test_an_auxiliary_head_of_another_width_starts_fresh(theirs, file):
    """ADE20K checkpoints have 256 channels there, the paper's model 512."""
    net = model(segmentation=SegmentationConfig("upernet", CHANNELS, 2 * AUXILIARY_CHANNELS))
    before = {k: v.clone() for k, v in net.segmentation.auxiliary.state_dict().items()}
    (line,) = load_mmseg(net, file)
    assert "auxiliary head has another width" in line
    for name, value in net.segmentation.auxiliary.state_dict().items():
        assert torch.equal(value, before[name])
    main = convert(theirs.state)["segmentation.main.conv_seg.weight"]
    assert torch.equal(net.segmentation.main.conv_seg.weight, main)


def test_a_backbone_alone_leaves_the_heads_fresh(theirs, tmp_path):
    """mmsegmentation publishes converted classification weights; their one norm is the last."""
    state = {
        name.removeprefix("backbone."): tensor
        for name, tensor in theirs.state.items()
        if name.startswith("backbone.") and not name.startswith("backbone.norm")
    }
    state |= {f"norm.{leaf}": torch.rand(192) for leaf in ("weight", "bias")}
    assert is_mmseg(state)
    save_file(state, tmp_path / "backbone.safetensors")
    net = model()
    lines = load_mmseg(net, tmp_path / "backbone.safetensors")
    parts = [re.search(r"no segmentation\.(\w+)", line)[1] for line in lines]
    assert parts == ["pyramid", "main", "auxiliary"]
    assert torch.equal(net.backbone.net.norm.weight, state["norm.weight"])


def test_a_model_without_segmentation_takes_the_backbone(theirs, ours, file):
    net = model(segmentation=SegmentationConfig())
    (line,) = load_mmseg(net, file)
    assert "not used" in line
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, ours.backbone.state_dict()[name])


def test_windows_that_timm_shrank_are_refused(file):
    kwargs = {k: v for k, v in SWIN.items() if k != "always_partition"}
    # at 224 pixels only the last stage's map is as small as a window
    for size in [(224, 224), (64, 64)]:
        net = model(size, kwargs=kwargs | {"always_partition": False})
        with pytest.raises(ArtifactNetError, match=r"always_partition=true"):
            load_mmseg(net, file)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kwargs": SWIN | {"depths": [2, 2, 2, 2]}}, r"unexpected \['backbone\.net\.layers\.2\."),
        ({"kwargs": SWIN | {"depths": [2, 2, 6, 2]}}, r"missing \['backbone\.net\.layers\.2\."),
        ({"kwargs": SWIN | {"embed_dim": 16}}, r"there, \(16,"),
        ({"kwargs": SWIN | {"window_size": 8}}, r"\(169, 1\) there, \(225, 1\) here"),
        ({"segmentation": SegmentationConfig("upernet", 64, 16)}, r"segmentation\.main\."),
        ({"backbone": "convnext_atto", "kwargs": {}}, "than convnext_atto with these heads"),
    ],
)
def test_another_architecture_is_refused_and_nothing_changes(file, config, words):
    net = model(**config)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    message = rf"upernet_swin\.pth: checkpoint of another architecture.*{words}"
    with pytest.raises(ArtifactNetError, match=message) as caught:
        load_mmseg(net, file)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_foreign_tensor_is_not_passed_over(theirs, tmp_path):
    state = theirs.state | {"neck.convs.0.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "neck.pth")
    with pytest.raises(ArtifactNetError, match=r"unexpected \['backbone.net.neck.convs.0.weight"):
        load_mmseg(model(), tmp_path / "neck.pth")


def test_timm_and_artifactnet_weights_are_not_mmseg_weights(theirs):
    assert is_mmseg(theirs.state)
    net = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 2))
    assert not is_mmseg(net.state_dict())
    assert not is_mmseg({f"module.{k}": v for k, v in net.state_dict().items()})
    assert not is_mmseg(model().state_dict())
    # the authors' classification weights, which timm converts itself
    assert not is_mmseg({"layers.0.blocks.0.attn.qkv.weight": torch.zeros(1)})
    assert not is_mmseg({})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", None])
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_read_from_the_usual_wrappings(tmp_path, wrapper, legacy):
    state = {"a.weight": torch.arange(3.0)}
    content = {"meta": {"epoch": 3}, wrapper: state} if wrapper else state | {"epoch": 3}
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    (found,) = read(path).items()
    assert found[0] == "a.weight"
    assert torch.equal(found[1], state["a.weight"])


@pytest.mark.slow
def test_the_error_of_a_file_with_objects_gives_a_working_export_command(tmp_path):
    path = tmp_path / "iter 80000.pth"
    history = SimpleNamespace(values=[1, 2])  # as mmengine pickles its message buffers
    torch.save({"state_dict": {"a": torch.arange(2.0)}, "message_hub": history}, path)
    with pytest.raises(ArtifactNetError, match="can run any code; if you trust the file") as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"model.weights {path}: cannot be read: ")
    command = message.split("export its tensors first: ")[1]
    command = command.replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(command, shell=True, check=True, timeout=120)
    exported = read(tmp_path / "iter 80000_tensors.pth")
    assert torch.equal(exported["a"], torch.arange(2.0))


def test_unpickling_never_runs_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(ArtifactNetError, match=r"evil\.pth: cannot be read"):
        read(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_weights(tmp_path):
    torch.save({"a": torch.zeros(4096)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    contents = {
        "empty.pth": b"",
        "text.pth": b"version https://git-lfs.github.com/spec/v1\n",
        "cut.pth": whole[: len(whole) // 2],
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactNetError, match=rf"{name}: cannot be read: damaged") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    for content in (torch.zeros(3), [1], {"epoch": 3}, {"state_dict": {}}):
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(ArtifactNetError, match="holds no named tensors"):
            read(tmp_path / "none.pth")
    with pytest.raises(ArtifactNetError, match=r"absent\.pth: cannot be read: no such file"):
        read(tmp_path / "absent.pth")
