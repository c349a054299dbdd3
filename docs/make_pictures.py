"""Draw the pictures of concepts.md from the answers of packaged models.

``python docs/make_pictures.py`` takes one to two minutes on two CPU cores. The images are those of
the package's test split, which no packaged model has trained on.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

import artifactnet
from artifactnet.data.sources.demo import build_demo_splits
from artifactnet.explanation.overlay import grid, outline, overlay

matplotlib.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent / "images"
TEST = Path(artifactnet.__file__).parent / "photographs" / "test"
SHOWN = ("kodak_017", "kodak_036", "clothing_065", "grocery_136")
METHODS = ("heatmap", "rollout", "relevance", "grad_cam_smooth", "sliding_patch")
HEIGHT = 170  # pixels of a picture in a grid


def pixels(kind: str, name: str) -> np.ndarray:
    """(H, W, 3) of a photograph or fake, (H, W) of a mask."""
    path = TEST / kind / f"{name}.{'png' if kind == 'masks' else 'jpg'}"
    return np.asarray(Image.open(path).convert("L" if kind == "masks" else "RGB"))


def small(image: np.ndarray) -> np.ndarray:
    """Resized to ``HEIGHT``."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((round(width * HEIGHT / height), HEIGHT)))


def save(picture: np.ndarray, name: str) -> None:
    """As JPEG."""
    Image.fromarray(picture).save(IMAGES / name, quality=80, optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB")


def draw_answers(model: artifactnet.Predictor) -> None:
    """A photograph, its repainted twin, where it was repainted, and the heatmaps of both."""
    rows, captions = [], []
    for name in SHOWN:
        real, fake, mask = pixels("real", name), pixels("fake", name), pixels("masks", name)
        answers = model.predict([real, fake])
        rows.append(
            [
                small(real),
                small(overlay(real, answers[0].heatmap)),
                small(outline(fake, (mask > 0).astype(np.uint8), 3)),
                small(overlay(fake, answers[1].heatmap)),
            ]
        )
        captions.append(
            [
                "photograph",
                f"{answers[0].probability:.2f} {answers[0].verdict}",
                "repainted inside the line",
                f"{answers[1].probability:.2f} {answers[1].verdict}",
            ]
        )
    save(grid(rows, captions), "answers.jpg")


def draw_methods() -> None:
    """Maps of one network and one image by several methods."""
    model = artifactnet.load_model("vit-aligned", device="cpu")
    config = artifactnet.load_config("toy_align", ["data.demo_test=8"])
    source = build_demo_splits(config.data, seed=0)["test"]
    fakes = [source.load(i) for i, record in enumerate(source.records) if record.label == 1]
    # the edit that this small network is surest of
    sure = max(fakes, key=lambda sample: model.predict(sample.image).probability)
    row = [small(outline(sure.image, sure.mask, 1))]
    captions = ["edited inside the line"]
    for method in METHODS:
        options = {"window": 56, "stride": 28} if method == "sliding_patch" else {}
        found = artifactnet.explain(model, sure.image, method, **options)
        row.append(small(overlay(sure.image, found.heatmap)))
        captions.append(f"{method} ({found.scale})")
    save(grid([row[:3], row[3:]], [captions[:3], captions[3:]]), "methods.jpg")


def draw_verdicts(model: artifactnet.Predictor) -> None:
    """Probabilities of all photographs and their twins, and the three verdicts."""
    names = sorted(path.stem for path in (TEST / "real").iterdir())
    assert model.limits is not None
    real_below, fake_from = model.limits
    figure, axes = plt.subplots(figsize=(7.2, 2.3), layout="constrained")
    for height, (kind, label, color) in enumerate(
        (("real", "photographs", "tab:blue"), ("fake", "repainted twins", "tab:red"))
    ):
        answers = model.predict([pixels(kind, name) for name in names])
        chances = [answer.probability for answer in answers]
        offsets = np.linspace(-0.18, 0.18, len(chances))
        axes.scatter(chances, height + offsets, s=22, color=color, alpha=0.75, clip_on=False)
        verdicts = [answer.verdict for answer in answers]
        print(label, {word: verdicts.count(word) for word in ("real", "uncertain", "fake")})
    axes.axvspan(real_below, fake_from, color="0.92", zorder=0)
    axes.axvline(model.threshold, color="0.4", linestyle=":", linewidth=1)
    for x, word in ((real_below / 2, "real"), ((fake_from + real_below) / 2, "uncertain"),
                    ((1 + fake_from) / 2, "fake")):  # fmt: skip
        axes.text(x, 1.42, word, ha="center", va="bottom")
    axes.set(xlim=(0, 1), ylim=(-0.4, 1.4), xlabel="probability that the image is fake")
    axes.set_yticks([0, 1], ["photographs", "repainted twins"])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "verdicts.png", dpi=110)


def draw_stability(model: artifactnet.Predictor) -> None:
    """How the probability moves when the same picture is saved again, or resized."""
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    images = [pixels("fake", name) for name in SHOWN] + [pixels("real", SHOWN[1])]
    labels = [f"{name}, repainted" for name in SHOWN] + [f"{SHOWN[1]}, photograph"]
    assert model.limits is not None
    for row, answer in enumerate(model.predict(images, stability=True)):
        assert answer.stability is not None
        variants = answer.stability.to_json()["probabilities"]
        axes.plot([min(variants.values()), max(variants.values())], [row, row], color="0.7")
        for number, (variant, chance) in enumerate(variants.items()):
            label = variant if row == 0 else None
            axes.scatter(
                chance, row, s=36, marker="os^vD"[number], color=f"C{number}", label=label, zorder=2
            )
    axes.axvspan(*model.limits, color="0.92", zorder=0)
    axes.set(xlim=(0, 1), xlabel="probability that the image is fake (gray: uncertain)")
    axes.set_yticks(range(len(labels)), labels)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.25), ncols=5, frameon=False)
    figure.savefig(IMAGES / "stability.png", dpi=110)


if __name__ == "__main__":
    default = artifactnet.load_model(device="cpu")
    draw_answers(default)
    draw_methods()
    draw_verdicts(default)
    draw_stability(default)
