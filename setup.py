"""Installation of ArtifactNet; the tools' settings are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "artifactnet" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"$', INIT, re.MULTILINE).group(1)

INSTALL = [
    "torch>=2.6",
    "torchvision",
    "timm>=1.0.20",
    "lightning>=2.6",
    "torchmetrics>=1.4",
    "albumentations>=2.0.8",
    "mmsegmentation>=1.2.2",
    "mmcv-lite>=2.1,<2.2",  # mmsegmentation refuses 2.2; the full mmcv needs a compiler
    "mmengine>=0.10.7",
    "ftfy",  # mmsegmentation imports ftfy and regex without declaring them
    "regex",
    "grad-cam>=1.5.4",
    "omegaconf>=2.3",
    "pyyaml>=6.0",
    "numpy>=1.26",
    "pillow>=10.3",
    "opencv-python-headless>=4.9.0.80",
    "pyarrow>=16.0",
    "google-crc32c>=1.5",  # checksums of TFRecord files
    "safetensors>=0.4.3",
    "huggingface-hub>=0.23",
    "scikit-image>=0.22",
    "scikit-learn>=1.3",
    "scipy>=1.10",
    "matplotlib>=3.8",  # one of the photographs of the embedded data set ships inside it
    "jinja2>=3.1",
    "rich>=13.0",
    "packaging>=22.0",  # what `artifactnet doctor` compares versions with
    "tensorboard>=2.15",
]
LORA = ["peft>=0.13"]
# PyTorch's Linux wheels bring it along; named here because we import it
TRITON = ['triton>=3.0; sys_platform == "linux"']
ONNX = ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"]
OPENVINO = [*ONNX[:2], "openvino>=2024.4", "nncf>=2.13"]  # the graph comes to OpenVINO as ONNX
MLLM = [
    "transformers>=5.20.2,<6",
    "peft>=0.21,<0.22",
    "accelerate>=1.15,<2",
    "gguf>=0.10",  # language models in llama.cpp's format, for `artifactnet build-base`
]
MLLM_TRAIN = [*MLLM, "trl>=1.16,<1.17", "datasets>=5.2,<6"]  # fakexplainer's two stages
# answers of models behind an OpenAI-compatible endpoint: `artifactnet annotate`, the judge
ENDPOINT = ["openai>=1.56"]
COMPLETION = ["argcomplete>=3.1"]
DEMO = ["gradio>=6.0,<7", "starlette>=0.40"]  # it brings starlette along
SERVE = [
    "fastapi>=0.115",
    "starlette>=0.40",  # FastAPI brings these two along; named because we import them
    "pydantic>=2.7",
    "uvicorn>=0.30",
    "python-multipart>=0.0.27",  # since then it limits the headers of a part
    "prometheus-client>=0.20",
]
RAY = ["ray[data]>=2.50", "fsspec>=2023.10"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings-python>=2.0"]
TEST = [
    *MLLM_TRAIN,
    *ENDPOINT,
    *TRITON,
    *ONNX,
    *OPENVINO[2:],
    *COMPLETION,
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "ruff>=0.6",
    "mypy>=1.11",
    "playwright>=1.40",  # drives Chromium in the tests of the report; skipped where there is none
    "setuptools>=77.0.3",  # the packaging tests build a wheel
    "httpx>=0.27",  # requests to the server
    "nbclient>=0.10",  # runs the notebooks
    "ipykernel>=6.29",
]
EVERYTHING = [
    *MLLM_TRAIN,
    *ENDPOINT,
    *TRITON,
    *ONNX,
    *OPENVINO[2:],
    *COMPLETION,
    *DEMO,
    *SERVE,
    *RAY,
]

setup(
    name="artifactnet",
    version=VERSION,
    description="Detect AI-generated images by looking at perceptual artifacts",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # the recipes are in configs/ for people and travel as the package artifactnet.configs
    packages=[*find_packages(include=["artifactnet", "artifactnet.*"]), "artifactnet.configs"],
    package_dir={"artifactnet.configs": "configs"},
    package_data={
        "artifactnet": ["py.typed", "photographs/*.csv", "photographs/*/*/*"],
        "artifactnet.configs": ["**/*.yaml"],
        "artifactnet.annotation.qreal": ["*.css", "*.js"],
        "artifactnet.demo": ["*.css", "*.js"],
        "artifactnet.explanation.report": ["*.html", "*.css", "*.js"],
        "artifactnet.weights": ["*.safetensors", "*.md"],
    },
    include_package_data=False,
    install_requires=INSTALL,
    extras_require={
        "lora": LORA,
        "triton": TRITON,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "mllm": MLLM,
        "mllm-train": MLLM_TRAIN,
        "endpoint": ENDPOINT,
        "completion": COMPLETION,
        "demo": DEMO,
        "serve": SERVE,
        "ray": RAY,
        "docs": DOCS,
        "test": TEST,
        "all": EVERYTHING,
    },
    entry_points={"console_scripts": ["artifactnet = artifactnet.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
