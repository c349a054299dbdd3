"""Small third-party classifiers, and what must be the same before and after an explanation."""

import timm
import torch
from torch import nn

from artifactnet.explanation.detector import Classifier

SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
TIMM = {
    "resnet": ("resnet10t", {"channels": (8, 16, 24, 32)}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "swin": ("swin_tiny_patch4_window7_224", {**SWIN, "img_size": (96, 160)}),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": (96, 160), "embed_dim": 24, "depth": 3, "num_heads": 2},
    ),
}
SIZE = (96, 160)


def timm_net(kind, classes=2, seed=1):
    torch.manual_seed(seed)
    name, options = TIMM[kind]
    net = timm.create_model(name, num_classes=classes, **options).eval()
    wake(net)
    return net


def wake(net):
    """Weights that are zero or tiny at the start would make maps of nothing."""
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1 and float(weight.std()) < 0.1:
                weight.normal_(0, 0.1)


class SmallCnn(nn.Module):
    """In the manner of torchvision: one ReLU used twice, the second time in place."""

    def __init__(self, classes=2, inplace=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        x = self.pool(self.relu(self.conv1(images)))
        x = self.relu(self.conv2(x))
        return self.fc(self.average(x).flatten(1))


def small_cnn(size=(16, 24), seed=0, classes=2, inplace=False, **options):
    torch.manual_seed(seed)
    return Classifier(SmallCnn(classes, inplace).eval(), size, **options)


def pictures(size, count=3, seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def state_of(module):
    """Everything that an explanation must leave as it was."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [m.training for m in module.modules()],
        [[dict(getattr(m, name)) for name in hooks] for m in module.modules()],
        [(id(p), p.requires_grad, id(p.grad), p._version) for p in module.parameters()],
        [(id(b), b._version) for b in module.buffers()],
        [sorted(vars(m)) for m in module.modules()],
    )
