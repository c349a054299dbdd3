"""``experiment``: the trainings of one of the papers' tables, evaluated alike, in one table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifactnet.cli import arguments
from artifactnet.cli.qreal_bench import JUDGES

if TYPE_CHECKING:
    from artifactnet.data.test_sets.base import TestSet
    from artifactnet.data.test_sets.read import TestSetOptions

OUT = "runs/experiments"
_OVERRIDES = "keys of all trainings: train.epochs=2"


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """The experiments and their options."""
    arguments.add_commands(
        parser,
        (
            ("detection", "the five trainings of X-AIGD Table 2", _add_plan, _run_plan),
            ("interpretation", "X-AIGD Table 13: where they look", _add_plan, _run_plan),
            ("fusion-ablation", "HEIE Table 5: global and local maps", _add_plan, _run_plan),
            ("transfer", "HEIE Table 4: train on A, evaluate on B", _add_transfer, _run_transfer),
            ("cot-ablation", "HEIE Table 7: chain of thought", _add_cot_ablation, _run_cot),
            (
                "alignment",
                "with and without attention alignment, compared seed by seed",
                _add_alignment,
                _run_alignment,
            ),
            (
                "alignment-ablation",
                "X-AIGD Table 14: aligned with artifacts, or with other masks",
                _add_ablation,
                _run_ablation,
            ),
            (
                "lambda-sweep",
                "X-AIGD Fig. 7: weights of patches without artifact",
                _add_sweep,
                _run_sweep,
            ),
            ("folds", "cross-validation of a config", _add_folds, _run_folds),
            (
                "fakexplainer-ablation",
                "FakeXplainer Table 4: parts of the answer left out",
                _add_plan,
                _run_fakexplainer,
            ),
            (
                "qreal-strategies",
                "Q-Real Table 4: ImageQA by a chain of three models, after ObjectQA, at once",
                _add_qreal,
                _run_qreal,
            ),
            (
                "robustness",
                "FakeXplainer Table 5: any models on damaged images",
                _add_robustness,
                _run_robustness,
            ),
            (
                "ood",
                "FakeXplainer Table 3: any models on public test sets",
                _add_models_and_sets,
                _run_ood,
            ),
        ),
        title="experiments",
    )


def run_experiment(args: argparse.Namespace) -> int:
    """Run an experiment; returns the exit code."""
    work: Callable[[argparse.Namespace], int] = args.work
    return work(args)


def _add_common(parser: argparse.ArgumentParser, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    parser.add_argument(
        "--seeds",
        type=arguments.natural,
        nargs="+",
        default=list(seeds),
        metavar="N",
        help=f"every training is repeated with each (default: {' '.join(map(str, seeds))})",
    )
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default=OUT, metavar="DIR", help=f"runs and tables ({OUT})")


def _add_recipe(parser: argparse.ArgumentParser, default: str) -> None:
    """A config that may be left out, and overrides; `_recipe` tells them apart."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="[CONFIG] KEY=VALUE",
        help=f"a YAML file or the name of a recipe (default: {default}), and {_OVERRIDES}",
    )


def _recipe(args: argparse.Namespace, default: str) -> tuple[str, list[str]]:
    words: list[str] = args.overrides
    return (words[0], words[1:]) if words and "=" not in words[0] else (default, words)


def _print(found: Mapping[str, Any], args: argparse.Namespace) -> int:
    from artifactnet.experiments.common import experiment_page

    print(experiment_page(found))
    print(f"table in {Path(args.out) / found['experiment']}.md and .json")
    return 0


def _add_plan(parser: argparse.ArgumentParser) -> None:
    arguments.add_overrides(parser, _OVERRIDES)
    parser.set_defaults(experiment=parser.prog.rpartition(" ")[2])
    _add_common(parser)


def _run_plan(args: argparse.Namespace) -> int:
    from artifactnet.experiments.run import run_experiment

    return _print(run_experiment(args.experiment, args.seeds, args.out, args.overrides), args)


def _add_transfer(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser, "train.epochs=2")
    parser.add_argument(
        "--on",
        required=True,
        nargs="+",
        metavar="[NAME=]MANIFEST",
        help="the data sets, two or more; each is trained on, all are evaluated on",
    )
    _add_common(parser)


def _run_transfer(args: argparse.Namespace) -> int:
    from artifactnet.experiments.transfer import named_sets, run_transfer

    sets = named_sets(args.on)
    return _print(run_transfer(args.config, sets, args.seeds, args.out, args.overrides), args)


def _add_cot_ablation(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, "paper/heie_richhf")
    _add_common(parser)


def _run_cot(args: argparse.Namespace) -> int:
    from artifactnet.experiments.cot_ablation import RECIPE, run_cot_ablation

    recipe, overrides = _recipe(args, RECIPE)
    return _print(run_cot_ablation(recipe, args.seeds, args.out, overrides), args)


def _add_alignment(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, "dinov2_align")
    _add_common(parser, (0, 1, 2, 3, 4))
    arguments.add_value(
        parser,
        "--faithfulness",
        arguments.natural,
        40,
        "deletion and insertion curves of N test fakes (40; 0: none)",
    )


def _run_alignment(args: argparse.Namespace) -> int:
    from artifactnet.experiments.alignment import RECIPE, run_alignment

    recipe, overrides = _recipe(args, RECIPE)
    return _print(run_alignment(recipe, args.seeds, args.out, overrides, args.faithfulness), args)


def _add_ablation(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, "dinov2_align")
    option = parser.add_argument
    option(
        "--masks",
        nargs="+",
        default=["none", "artifact", "saliency", "benign", "random"],
        metavar="MASK",
        help="none and one or more of artifact, saliency, benign, random (default: all)",
    )
    option(
        "--segments",
        metavar="DIR",
        help="benign: segments of the training images, GENERATOR/UID.png (labels) or "
        "GENERATOR/UID/*.png (masks); by default they are made",
    )
    option(
        "--segmenter",
        metavar="BASE",
        help="SAM for transformers that makes them, by name or folder (facebook/sam-vit-huge; "
        "extra mllm); by default Felzenszwalb's algorithm does",
    )
    option("--device", metavar="NAME", help="of the segmenter: auto, cpu, cuda, cuda:1, ... (auto)")
    option(
        "--saliency",
        metavar="DIR",
        help="saliency: gray maps called like the images; by default the spectral residual",
    )
    _add_sets(parser, required=False)
    _add_common(parser, (0, 1, 2, 3, 4))


def _add_sets(parser: argparse.ArgumentParser, required: bool) -> None:
    """Public test sets."""
    option = parser.add_argument
    option(
        "--on",
        required=required,
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="test sets; a name such as xaigd, chameleon, synthbuster, commfor, fakeclue, "
        "gptimage, ffpp or mmfr says in which layout a folder is",
    )
    option(
        "--reals",
        nargs="+",
        default=[],
        metavar="[SET=]WHAT",
        help="real images for sets that have none: a folder, or another set by its name",
    )
    option("--generator", metavar="NAME", help="gptimage: whose images are taken")
    arguments.add_value(parser, "--frames", arguments.positive, None, "ffpp: of each video")
    arguments.add_value(parser, "--limit", arguments.positive, None, "names of images per set")


def _set_options(args: argparse.Namespace) -> TestSetOptions:
    from artifactnet.data.test_sets.read import TestSetOptions

    return TestSetOptions(generator=args.generator, frames=args.frames, limit=args.limit)


def _read_sets(args: argparse.Namespace) -> dict[str, TestSet]:
    """The test sets, if any were named."""
    from artifactnet.experiments.chosen_sets import read_sets
    from artifactnet.experiments.transfer import named_sets
    from artifactnet.types import ArtifactNetError

    if not args.on:
        options = ("reals", "generator", "frames", "limit")
        given = next((option for option in options if getattr(args, option)), None)
        if given is not None:
            raise ArtifactNetError(f"--{given} is for the test sets of --on, and there is none")
        return {}
    return read_sets(named_sets(args.on, least=1), args.reals, _set_options(args))


def _run_ablation(args: argparse.Namespace) -> int:
    from artifactnet.experiments.alignment import RECIPE
    from artifactnet.experiments.alignment_ablation import run_alignment_ablation
    from artifactnet.types import ArtifactNetError

    recipe, overrides = _recipe(args, RECIPE)
    sets, folders = _read_sets(args), (args.segments, args.saliency)
    given = (recipe, args.masks, args.seeds, args.out, overrides, sets, *folders)
    if args.segmenter is None:
        if args.device is not None:
            raise ArtifactNetError(
                "--device is for --segmenter; of trainings it is train.device=..."
            )
        return _print(run_alignment_ablation(*given), args)
    if args.segments is not None or "benign" not in args.masks:
        raise ArtifactNetError("--segmenter is for the mask benign, without --segments")
    from artifactnet.inference.load import pick_device
    from artifactnet.vlm.segments import SamSegmenter

    segmenter = SamSegmenter(args.segmenter, pick_device(args.device or "auto"))
    return _print(run_alignment_ablation(*given, segmenter, args.segmenter), args)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser, "dinov2_align")
    parser.add_argument(
        "--lambdas",
        type=arguments.share,
        nargs="+",
        default=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        metavar="X",
        help="values of loss.alignment.benign_weight (default: 0 0.2 0.4 0.6 0.8 1)",
    )
    _add_sets(parser, required=False)
    _add_common(parser)


def _run_sweep(args: argparse.Namespace) -> int:
    from artifactnet.experiments.alignment import RECIPE
    from artifactnet.experiments.alignment_ablation import run_lambda_sweep

    recipe, overrides = _recipe(args, RECIPE)
    given = (recipe, args.lambdas, args.seeds, args.out, overrides, _read_sets(args))
    return _print(run_lambda_sweep(*given), args)


def _add_folds(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser, "train.epochs=2; seed=N draws other folds")
    arguments.add_value(parser, "--folds", arguments.positive, 4, "how many (4)")
    parser.add_argument(
        "--then",
        metavar="CONFIG",
        help="a second config, trained in every fold from the model of the first",
    )
    _add_out(parser)


def _run_folds(args: argparse.Namespace) -> int:
    from artifactnet.experiments.folds import folds_page, run_folds

    found = run_folds(args.config, args.out, args.overrides, args.folds, args.then)
    print(folds_page(found))
    print(f"table in {Path(args.out) / 'folds'}.md and .json")
    return 0


def _run_fakexplainer(args: argparse.Namespace) -> int:
    from artifactnet.experiments.fakexplainer_ablation import run_fakexplainer_ablation

    return _print(run_fakexplainer_ablation(args.seeds, args.out, args.overrides), args)


def _add_qreal(parser: argparse.ArgumentParser) -> None:
    _add_plan(parser)
    arguments.add_judge_endpoint(parser, JUDGES)


def _run_qreal(args: argparse.Namespace) -> int:
    from artifactnet.experiments.qreal_strategies import run_qreal_strategies

    judge = arguments.open_judge(args)
    return _print(run_qreal_strategies(args.seeds, args.out, args.overrides, judge), args)


def _add_models_and_sets(parser: argparse.ArgumentParser) -> None:
    """What experiments with any models on any test sets share."""
    option = parser.add_argument
    option(
        "--model",
        required=True,
        nargs="+",
        metavar="[NAME=]MODEL",
        help="models to compare: run folders, .safetensors, .onnx, .xml or .pt2 files, names of "
        "packaged models, NAME=module:function (returns a torch classifier, or a function from a "
        "list of images to probabilities), NAME=endpoint:URL#MODEL, or predictions made elsewhere "
        "(.jsonl)",
    )
    _add_sets(parser, required=True)
    option(
        "--keep-duplicates",
        action="store_true",
        help="keep images that one of the runs was trained on, and only count them",
    )
    option("--paper", action="store_true", help="add the paper's numbers, in a table of their own")
    option("--device", default="auto", help="of models in PyTorch: auto, cpu, cuda, ...")
    option("--batch-size", type=arguments.positive, metavar="N", help="images that pass together")
    arguments.add_value(parser, "--workers", arguments.natural, 0, "threads that read images")
    _add_out(parser)


def _common_arguments(args: argparse.Namespace) -> dict[str, Any]:
    from artifactnet.experiments.side_by_side import InferenceOptions
    from artifactnet.experiments.transfer import named_sets

    return {
        "models": args.model,
        "sets": named_sets(args.on, least=1),
        "out": args.out,
        "keep_duplicates": args.keep_duplicates,
        "paper": args.paper,
        "reals": args.reals,
        "options": _set_options(args),
        "inference": InferenceOptions(args.device, args.batch_size, args.workers, _report),
    }


def _report(text: str) -> None:
    arguments.print_line(text, sys.stderr, flush=True)


def _add_robustness(parser: argparse.ArgumentParser) -> None:
    _add_models_and_sets(parser)
    option = parser.add_argument
    option(
        "--levels",
        nargs="+",
        default=["original", "jpeg80", "jpeg30", "crop", "half"],
        metavar="LEVEL",
        help="original, jpegQ and webpQ of a quality Q, crop, half, blur1 (default: those of the "
        "paper, original jpeg80 jpeg30 crop half)",
    )
    arguments.add_value(parser, "--seed", arguments.natural, 0, "of crops (0)")
    option(
        "--recode",
        action="store_true",
        help="save all images as JPEG of quality 95 first, where file formats give classes away",
    )


def _run_robustness(args: argparse.Namespace) -> int:
    from artifactnet.experiments.robustness import robustness_page, run_robustness

    found = run_robustness(
        **_common_arguments(args), levels=args.levels, seed=args.seed, recode=args.recode
    )
    return _print_page(robustness_page(found), found, args)


def _run_ood(args: argparse.Namespace) -> int:
    from artifactnet.experiments.ood import ood_page, run_ood

    found = run_ood(**_common_arguments(args))
    return _print_page(ood_page(found), found, args)


def _print_page(page: str, found: Mapping[str, Any], args: argparse.Namespace) -> int:
    print(page)
    print(f"table in {Path(args.out) / found['experiment']}.md and .json")
    return 0
