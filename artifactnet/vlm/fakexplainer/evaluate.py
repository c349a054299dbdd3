"""Evaluation of a FakeXplainer, or of any model that answers in its form behind an endpoint."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.config import Config, load, to_dict
from artifactnet.data.datamodule import drop_and_summarize
from artifactnet.data.regions import annotated_regions
from artifactnet.data.sources.base import Source, Splits
from artifactnet.evaluation import results as tables
from artifactnet.evaluation.samples import (
    check_overrides,
    data_warnings,
    describe_data,
    evaluated_split,
    note_selection,
)
from artifactnet.evaluation.selection import DRAW_KEYS, select_images
from artifactnet.files import staging_folder
from artifactnet.inference.answers import UNANSWERED, AnswerLines, can_continue, partial_file
from artifactnet.inference.fingerprint import model_fingerprint
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.training.run import RunSplits
from artifactnet.types import ArtifactNetError, Prediction, Region, Sample
from artifactnet.vlm.base import load_base, pin_base
from artifactnet.vlm.fakexplainer.answering import CUT_OFF, AnswerPredictor
from artifactnet.vlm.fakexplainer.endpoint import EndpointPredictor
from artifactnet.vlm.fakexplainer.figures import (
    KEYS,
    Line,
    compute_figures,
    make_line,
    read_groups,
    read_lines,
    ungrouped,
)
from artifactnet.vlm.fakexplainer.pages import terminal, write
from artifactnet.vlm.fakexplainer.predictor import FakexplainerPredictor
from artifactnet.vlm.fakexplainer.processing import load_fakexplainer_processing
from artifactnet.vlm.fakexplainer.saving import (
    FACTS,
    Fakexplainer,
    is_fakexplainer,
    load_fakexplainer,
    read_facts,
)

# what may differ from the run; everything else belongs to the trained model
_GENERATION = ("mllm.max_new_tokens", "mllm.temperature")
ALLOWED = ("data.", "train.device", *_GENERATION, "mllm.groups")
ENDPOINT_ALLOWED = ("data.", "mllm.groups", "name=", "out=", "seed=")
ANSWERS = "answers.jsonl"
_UNTRAINED = "the base model as it is: it was not trained for this task"
_STAGING = "answers.partial"  # folder of temporary files
_RECIPE = "paper/fakexplainer_sft"  # of which only the keys of data are used


def evaluate_fakexplainer(run_dir: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a run's model and write ``results.json``, ``results.md`` and ``answers.jsonl``.

    On the run's own data they replace those of the run; else they go to
    ``evaluations/<data>-<fingerprint>`` inside its folder. An evaluation that was interrupted goes
    on where it stopped.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings of what `ALLOWED` names.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: no such run, an override that is not allowed, or data that cannot be used.
    """
    own, config = _open_config(run_dir, overrides)
    read_run_groups(config)  # before what takes long
    folder = Path(run_dir)
    data = _evaluation_data(config, own, overrides)
    model = load_fakexplainer(folder, choose_device(config.train.device))
    model.mllm.max_new_tokens = config.mllm.max_new_tokens
    model.mllm.temperature = config.mllm.temperature
    decisive = _decisive(config)
    same = decisive == _decisive(own)
    target = folder if same else folder / tables.subfolder(config, decisive)
    results = evaluate_model(model, data, config, folder, target)
    if target == folder:
        results["training"] = tables.read_training(folder)
    write(target, results)
    tables.print_results(results, terminal(results), target)
    return results


def evaluate_untrained(config: Config, folder: Path) -> dict[str, Any]:
    """Evaluate the base of a run without any training ("No-FT" in Table 4), with the same prompt.

    Args:
        config: of a run.
        folder: for ``results.json``, ``results.md`` and ``answers.jsonl``.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: the base or the data cannot be used, or the prompt is the brief one.
    """
    if config.mllm.layout == "brief":
        raise ArtifactNetError(
            "mllm.layout=brief: a base that was not trained is not told the form of an answer; set "
            "mllm.layout=user or system"
        )
    data = _evaluation_data(config, config, ())
    processing = load_fakexplainer_processing(config.mllm)
    tokens = len(processing.processor.tokenizer)
    base = load_base(config.mllm, tokens, choose_device(config.train.device))
    mllm = pin_base(config.mllm, base)
    model = Fakexplainer(base.eval(), processing, mllm, (_UNTRAINED,))
    about = {"base": mllm.base, "revision": mllm.revision, "epoch": 0}
    results = _evaluate(FakexplainerPredictor(model), data, config, folder, about)
    write(folder, results)
    return results


def evaluate_endpoint(
    predictor: EndpointPredictor, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a model behind an endpoint, and write the same files as `evaluate_fakexplainer`.

    They go to ``OUT/evaluations/<name>-<data>-<fingerprint>``.

    Args:
        predictor: the model.
        overrides: ``dotted.key=value`` strings of what `ENDPOINT_ALLOWED` names: the data above
            all (``data.name=manifest``, unless told otherwise, and its ``data.root``).

    Raises:
        ArtifactNetError: an override that is not allowed, data that cannot be used, or an endpoint
            that cannot be used, or answers nothing. What goes wrong with single images is counted.
    """
    check_overrides(overrides, ENDPOINT_ALLOWED)
    chat = predictor.chat
    name, together = _plain(chat.model), predictor.default_batch_size
    own = ["data.check=counts", f"data.batch_size={together}", f"name={name}"]
    config = load(_RECIPE, [*own, *overrides])
    data = _evaluation_data(config, None, overrides)
    about = {"base": chat.model, "revision": chat.endpoint.base_url, "epoch": None}
    place = tables.subfolder(config, _decisive(config), of=predictor.mode)
    folder = Path(config.out) / place.with_name(f"{config.name}-{place.name}")
    results = _evaluate(predictor, data, config, folder, about)
    if results["fakexplainer"]["all"]["failed"] == results["images"]:  # not a table of zeros
        raise ArtifactNetError(
            f"none of {results['images']} images has an answer; {folder / ANSWERS} says why"
        )
    if any(override.startswith(DRAW_KEYS) for override in overrides):
        results["data_warnings"].append(f"the splits were drawn with seed={config.seed}")
    write(folder, results)
    tables.print_results(results, terminal(results), folder)
    return results


def score_answers(
    path: str | Path, groups: str | Path | None = None, out: str | Path | None = None
) -> dict[str, Any]:
    """Figures of a saved ``answers.jsonl``, without a model.

    Args:
        path: the file.
        groups: file of groups of generators, see `figures.read_groups`.
        out: folder for ``results.json`` and ``results.md``; None writes nothing.

    Returns:
        The content of ``results.json``.

    Raises:
        ArtifactNetError: a file cannot be read; the message names file, line and key.
    """
    lines, grouping = read_lines(path), None if groups is None else read_groups(groups)
    results = {
        "run": str(path),
        "data": {"name": str(path), "root": None, "split": "all"},
        "model": None,
        "notices": [],
        "data_warnings": _group_warnings(lines, grouping),
        "skipped": [],
        "images": len(lines),
        "drop": _only({line["drop"] for line in lines}, path),
        "fakexplainer": compute_figures(lines, grouping),
    }
    if out is not None:
        write(Path(out), results)
    return results


def evaluate_model(
    model: Fakexplainer,
    data: RunSplits,
    config: Config,
    run: Path,
    target: Path | None = None,
) -> dict[str, Any]:
    """Figures of a model on the test split (on val, with a warning, where there is no test).

    Each answer is appended to a file at once. Called again for the same model after a kill, it
    asks only about the images that are left.

    Args:
        model: on the device where it runs.
        data: the images.
        config: of the run or evaluation.
        run: folder of the run, for the facts of its training.
        target: folder that gets ``answers.jsonl``; None: that of the run.

    Returns:
        JSON-ready results; `markdown` shows them.

    Raises:
        ArtifactNetError: an image or the file of groups cannot be used.
    """
    about = {
        "base": model.mllm.base,
        "revision": model.mllm.revision,
        "epoch": read_facts(run)["extra"]["epoch"],
    }
    predictor = FakexplainerPredictor(model)
    return _evaluate(predictor, data, config, run if target is None else target, about)


def read_run_groups(config: Config) -> dict[str, str] | None:
    """Groups of generators of a run; None without any.

    Raises:
        ArtifactNetError: ``mllm.groups`` names no such file.
    """
    return None if config.mllm.groups is None else read_groups(config.mllm.groups)


@dataclass(slots=True)
class _Data:
    """The images of an evaluation of its own."""

    splits: Splits
    summary: dict[str, Any]


def _evaluation_data(config: Config, own: Config | None, overrides: Sequence[str]) -> _Data:
    selection = select_images(config, own, overrides)
    splits, summary = drop_and_summarize(selection.splits, config.data)
    note_selection(summary, selection)
    return _Data(splits, summary)


def _open_config(run_dir: str | Path, overrides: Sequence[str]) -> tuple[Config, Config]:
    """Config of a run, and the same with overrides."""
    check_overrides(overrides, ALLOWED)
    path = Path(run_dir) / run_folder.CONFIG
    if not path.is_file():
        raise ArtifactNetError(
            f"{run_dir} is not the folder of a run (it has no {run_folder.CONFIG})"
        )
    if not is_fakexplainer(run_dir):
        raise ArtifactNetError(f"{run_dir} has no {FACTS} yet; finish the run with resume=true")
    return load(path), load(path, overrides)


def _decisive(config: Config) -> dict[str, Any]:
    """All that decides the figures of a given model."""
    indifferent = (*tables.INDIFFERENT, "augment", "balance")
    data = {key: value for key, value in to_dict(config.data).items() if key not in indifferent}
    decisive = {"data": data, "max_new_tokens": config.mllm.max_new_tokens, "seed": config.seed}
    if config.mllm.temperature:
        decisive["temperature"] = config.mllm.temperature
    return decisive


def _plain(name: str) -> str:
    """A server's name of a model as part of a folder's name."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def _evaluate(
    predictor: AnswerPredictor,
    data: RunSplits,
    config: Config,
    folder: Path,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    groups = read_run_groups(config)
    split = evaluated_split(data.splits)
    asked = _Asked(data.splits[split], predictor, config.data.on_error == "skip")
    batch = config.data.eval_batch_size or config.data.batch_size
    lines = asked.answers(folder, batch)
    if not lines:
        raise ArtifactNetError(f"data.name={config.data.name}: no image of {split} can be used")
    warnings = data_warnings(data.summary, split, asked.skipped)
    return {
        "run": config.name,
        "data": describe_data(config, data.summary, split),
        "model": dict(about),
        "notices": list(predictor.warnings),
        "data_warnings": warnings + _failed(lines) + _group_warnings(lines, groups),
        "skipped": asked.skipped,
        "images": len(lines),
        "drop": predictor.drop,
        "fakexplainer": compute_figures(lines, groups),
    }


class _Asked:
    """Images that a model is asked about.

    Attributes:
        skipped: images that could not be read.
    """

    def __init__(self, source: Source, predictor: AnswerPredictor, skip: bool) -> None:
        self._source, self._predictor, self._skip = source, predictor, skip
        self.skipped: list[str] = []
        self._order: list[int] = []  # offset of each image's line
        # places of images whose answer comes, and what is known about them
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque()

    def answers(self, folder: Path, batch: int) -> list[dict[str, Any]]:
        """Lines of `figures`, written to ``answers.jsonl`` and read from a part of it."""
        path = folder / ANSWERS
        settings = {"model": model_fingerprint(self._predictor)}
        with (
            staging_folder(folder / _STAGING) as staging,
            AnswerLines(
                path,
                staging,
                settings,
                partial_file(path).is_file() and can_continue(path, settings),
                KEYS,
            ) as lines,
        ):
            unanswered = self._unanswered(lines)
            for answer in self._predictor.predict_stream(unanswered, batch, heatmaps=False):
                place, known = self._waiting.popleft()
                self._order[place] = lines.append(known | _answer(answer))
            found = list(lines.entries(self._order))
            lines.finish(self._order)
        return found

    def _unanswered(self, lines: AnswerLines) -> Iterator[ImageInput]:
        """The images without an answer."""
        for index, record in enumerate(self._source.records):
            try:
                sample = self._source.load(index)
            except ArtifactNetError:
                if not self._skip:
                    raise
                self.skipped.append(record.location)
                continue
            known = _known(sample, self._predictor)
            found = lines.find(record.location)
            if found is not None:
                place, earlier = found
                # one that failed is asked about again
                if known.items() <= earlier.items() and earlier["answer"] is not None:
                    self._order.append(place)
                    continue
            self._waiting.append((len(self._order), known))
            self._order.append(UNANSWERED)
            yield ImageInput(record.location, sample.image)


def _known(sample: Sample, predictor: AnswerPredictor) -> dict[str, Any]:
    record = sample.record
    height, width = sample.image.shape[:2]
    regions = annotated_regions(sample)
    if regions and sample.regions is None:
        # nobody wrote captions of these, so none is compared
        regions = tuple(Region(region.bbox, "") for region in regions)
    try:
        input_size = predictor.input_size((width, height))
    except ArtifactNetError:  # which becomes this image's failure
        input_size = None
    return make_line(
        record.location,
        record.label,
        record.generator,
        (width, height),
        input_size,
        regions,
        sample.tags,
        predictor.drop,
        predictor.form,
    )


def _answer(answer: Prediction | Failure) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"answer": None, "probability": None, "cut_off": False, "problem": answer.reason}
    assert answer.explanation is not None
    return {
        "answer": answer.explanation.text,
        "probability": answer.probability,
        "cut_off": CUT_OFF in answer.warnings,
        "problem": None,
    }


def _failed(lines: Sequence[Line]) -> list[str]:
    problems = [f"{line['path']}: {line['problem']}" for line in lines if line["answer"] is None]
    if not problems:
        return []
    return [f"{len(problems)} images have no answer and count as wrong, e.g. {problems[0]}"]


def _group_warnings(lines: Sequence[Line], groups: Mapping[str, str] | None) -> list[str]:
    missing = [] if groups is None else ungrouped(lines, groups)
    if not missing:
        return []
    return [f"{len(missing)} generators are in no group: {', '.join(missing[:5])}"]


def _only(values: set[str], path: str | Path) -> str:
    if len(values) > 1:
        raise ArtifactNetError(
            f"{path}: its answers lack different parts (drop: {', '.join(sorted(values))}); score "
            "them one by one"
        )
    return values.pop()
