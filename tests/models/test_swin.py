import copy

import pytest
import timm
import torch

from artifactnet.models.timm_net import accept_any_size

SMALL = {"depths": (2, 2), "num_heads": (1, 2), "num_classes": 0}
V1 = ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "window_size": 7, **SMALL})
V2 = ("swinv2_tiny_window8_256", {"embed_dim": 8, "window_size": 7, **SMALL})
both = pytest.mark.parametrize(("name", "arguments"), [V1, V2], ids=["v1", "v2"])


def build(name, arguments, **more):
    torch.manual_seed(0)
    more = {"img_size": 112, "dynamic_img_size": True} | more
    return timm.create_model(name, **arguments, **more).eval()


def shifted_block(net):
    block = net.layers[0].blocks[1]
    assert block.shift_size == (3, 3)
    return block


def reach(block, height, width, row, column):
    """(height, width) of whether the attention output at one place depends on each token."""
    x = torch.randn(1, height, width, 8, requires_grad=True)
    block._attn(x)[0, row, column].sum().backward()
    return x.grad[0].abs().sum(-1) > 1e-20  # a masked weight is exp(-100), not zero


@both
@pytest.mark.parametrize(("height", "width"), [(13, 13), (9, 20), (14, 14), (15, 8)])
def test_opposite_borders_of_a_shifted_map_do_not_attend_to_each_other(
    name, arguments, height, width
):
    """A token sees the part of its own shifted window that lies in the map, and all of it."""
    net = build(name, arguments)
    accept_any_size(net)
    block = shifted_block(net)
    for row, column in [(0, 0), (height - 1, width - 1), (0, width - 1), (height // 2, 3)]:
        # windows of a map shifted by 3 begin at 3, 10, 17, ...; the first one is cut to 0..2
        same_row = torch.tensor([(r + 4) // 7 == (row + 4) // 7 for r in range(height)])
        same_column = torch.tensor([(c + 4) // 7 == (column + 4) // 7 for c in range(width)])
        expected = same_row[:, None] & same_column[None, :]
        assert torch.equal(reach(block, height, width, row, column), expected)


@both
def test_whole_windows_give_what_timm_gives(name, arguments):
    net = build(name, arguments)
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        expected = net.forward_features(images)
        names = list(net.state_dict())
        for _ in range(2):  # twice does no harm
            accept_any_size(net)
            assert torch.equal(net.forward_features(images), expected)
        assert list(net.state_dict()) == names


@both
def test_masks_built_in_advance_fit_as_well(name, arguments):
    """Without dynamic sizes timm keeps the mask of one size, padded as ours is."""
    net = build(name, arguments, img_size=(100, 52))
    fixed = build(name, arguments, img_size=(100, 52), dynamic_img_size=False)
    fixed.load_state_dict(net.state_dict())
    images = torch.randn(1, 3, 100, 52)
    accept_any_size(net)
    accept_any_size(fixed)
    with torch.no_grad():
        assert torch.equal(net.forward_features(images), fixed.forward_features(images))


@both
def test_an_image_is_padded_to_whole_patches_with_zeros(name, arguments):
    net = build(name, arguments)
    accept_any_size(net)
    images = torch.randn(1, 3, 49, 62)
    padded = torch.zeros(1, 3, 52, 64)
    padded[..., :49, :62] = images
    with torch.no_grad():
        assert torch.equal(net.forward_features(images), net.forward_features(padded))


@both
def test_a_deep_copy_computes_with_its_own_weights(name, arguments):
    net = build(name, arguments)
    accept_any_size(net)
    twin = copy.deepcopy(net)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.randn(1, 3, 100, 60)
    fresh = build(name, arguments)
    accept_any_size(fresh)
    with torch.no_grad():
        assert torch.equal(twin.forward_features(images), fresh.forward_features(images))
        assert not torch.equal(net.forward_features(images), fresh.forward_features(images))
