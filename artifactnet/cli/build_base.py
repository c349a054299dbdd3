"""``build-base``: a base for vision-language models, of a pretrained ViT and a language model."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments

_VIT, _SIDE = "vit_small_patch14_dinov2", 224


def add_build_base_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``build-base``."""
    option = parser.add_argument
    option("out", metavar="OUT", help="folder to write, for mllm.base")
    option(
        "--language",
        required=True,
        metavar="MODEL",
        help="a causal language model: folder, name on the Hugging Face Hub, or a .gguf file",
    )
    option("--revision", help="branch, tag or commit of a language model on the hub")
    option(
        "--vision",
        default=_VIT,
        metavar="NAME",
        help=f"a plain ViT of timm with a class token ({_VIT}, whose weights are in the package)",
    )
    option("--vision-weights", metavar="FILE", help="its weights, if they are in a local file")
    arguments.add_value(
        parser, "--tile", arguments.positive, _SIDE, f"side of a tile in pixels ({_SIDE})"
    )
    arguments.add_value(
        parser,
        "--max-tiles",
        arguments.positive,
        12,
        "most tiles of an image (12)",
    )
    arguments.add_value(
        parser, "--seed", arguments.natural, 0, "of the projector and of added tokens (0)"
    )


def run_build_base(args: argparse.Namespace) -> int:
    """Run ``build-base``; returns the exit code."""
    from artifactnet.config import ModelConfig
    from artifactnet.vlm.build_base import build_base

    vision = ModelConfig(
        backbone=args.vision,
        pretrained="true",  # a base of random features would be of no use
        weights=args.vision_weights,
        image_size=[args.tile, args.tile],
    )
    built = build_base(
        args.out, args.language, vision=vision, revision=args.revision, max_tiles=args.max_tiles,
        seed=args.seed,
    )  # fmt: skip
    print(
        f"{built.path}: vision tower {built.vision / 1e6:.1f} M parameters, new projector "
        f"{built.projector / 1e6:.1f} M, language model {built.language / 1e6:.1f} M; "
        f"{built.image_tokens} tokens a tile. Use it as mllm.base={built.path}"
    )
    return 0
