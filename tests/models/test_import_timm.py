"""timm is imported without PyTorch's compiler, and both still work."""

import subprocess
import sys

START = """
import sys
import torch
from artifactnet.models.import_timm import import_timm
disable = torch.compiler.disable
timm = import_timm()
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
assert torch.compiler.disable is disable
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_compiler_is_there_when_it_is_needed():
    run("""
import torchvision.ops
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
whole = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, (2, 2))
assert torch.equal(whole, torch.ones(1, 1, 2, 2))
from torchvision.ops import roi_align  # the module, or the function of that name
real = sys.modules["torchvision.ops.roi_align"].is_compile_supported
assert real("cpu") in (True, False)
import torch._dynamo.utils
assert torch._dynamo.utils.counters is not None
""")


def test_a_model_that_tells_the_compiler_what_to_leave_alone():
    run("""
if timm.is_model("test_naflexvit"):
    with torch.no_grad():
        out = timm.create_model("test_naflexvit").eval()(torch.zeros(1, 3, 160, 160))
    assert out.shape[0] == 1
""")


def test_a_prediction_needs_neither_the_compiler_nor_what_only_training_needs():
    run("""
import numpy as np
import artifactnet
artifactnet.load_model(device="cpu").predict(np.zeros((64, 48, 3), np.uint8))
heavy = {"torch._dynamo", "sympy", "pandas", "sklearn", "scipy", "skimage", "lightning",
         "matplotlib", "albumentations", "omegaconf", "pyarrow", "torchmetrics", "transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""")
