"""HEIE on a multimodal language model (Yang et al. 2024): the module, and generation of text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import Config, HeatmapConfig, MllmConfig
from artifactnet.models.heads.decoder import HeatmapOutput
from artifactnet.models.heads.hierarchy import HierarchicalHead
from artifactnet.models.heads.mapper import Tokens
from artifactnet.models.pyramid import LEVELS, level_indices
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.base import choose_weights, load_base, pin_base
from artifactnet.vlm.heie.processing import HeieInputs, HeieProcessing, load_heie_processing
from artifactnet.vlm.processing import IGNORE_INDEX


@dataclass(slots=True)
class HeieOutput:
    """Outputs of HEIE for a batch."""

    # one per image, each a batch of 1 with the size of the image's own grid
    heatmaps: list[HeatmapOutput]
    nll: Tensor  # (B,) negative log-likelihood of each answer, in nats, summed over its tokens
    tokens: Tensor  # (B,) int64 number of tokens of each answer
    # mean negative log-likelihood over the tokens of all answers; None without labels
    text_loss: Tensor | None
    image_tokens: Tensor  # (T, n, D) what the projector made of each tile and thumbnail


class HEIE(nn.Module):
    """Text, heatmap and score in one forward pass (HEIE, Yang et al. 2024, Fig. 2).

    The language model's last hidden states at the map tokens, and its own vision tower's features
    of tiles and thumbnail, go through the implausibility mapper; the one at ``[SCORE]`` goes to
    the scorer. Features are its last ones, or with ``mllm.features=levels`` also those of
    three blocks before, see `artifactnet.models.pyramid.level_indices`.

    Args:
        base: an ``InternVLForConditionalGeneration``, with or without adapters.
        processing: of the same base model.
        config: of the mapper, fuser and scorer; its ``tile`` is the base model's.
        mllm: what the base was loaded with.
    """

    def __init__(
        self, base: Any, processing: HeieProcessing, config: HeatmapConfig, mllm: MllmConfig
    ) -> None:
        super().__init__()
        self.base = base
        self.processing = processing
        self.config, self.mllm = config, mllm
        self.notices: tuple[str, ...] = ()  # what users should know before they trust an answer
        settings = self.inner.config
        depth = settings.vision_config.num_hidden_layers
        if mllm.features == "levels" and depth < LEVELS:
            raise ArtifactNetError(
                f"mllm.features=levels needs {LEVELS} blocks of the vision tower, but that of "
                f"{mllm.base} has {depth}; set mllm.features=last"
            )
        levels = level_indices([1] * depth) if mllm.features == "levels" else (depth - 1,)
        self._earlier = levels[:-1]  # blocks whose output is read beside the last features
        self.head = HierarchicalHead(
            config,
            [settings.vision_config.hidden_size] * len(levels),
            settings.text_config.hidden_size,
        )
        patch = settings.vision_config.patch_size
        self._cells = processing.tile // int(patch[0] if isinstance(patch, list | tuple) else patch)

    @property
    def causal(self) -> Any:
        """The language model with its output layer, below any adapters."""
        return self.base.get_base_model() if hasattr(self.base, "get_base_model") else self.base

    @property
    def inner(self) -> Any:
        """The language model without its output layer."""
        return self.causal.model

    @property
    def device(self) -> torch.device:
        """Of the head, and with it of everything else."""
        return next(self.head.parameters()).device

    def forward(self, inputs: HeieInputs, language: bool = True) -> HeieOutput:
        """Likelihood of answers, and the heatmaps and scores of their map and score tokens.

        Without ``language`` the language model is not run: image tokens alone, no heatmaps.

        Raises:
            ValueError: a row does not have 1 + N map tokens and one score token.
        """
        inner = self.inner
        seen = inner.get_image_features(
            inputs.pixel_values.to(inner.dtype),
            return_dict=True,
            output_hidden_states=bool(language and self._earlier),
        )
        image_tokens = seen.pooler_output
        if not language:
            nll = image_tokens.new_zeros(len(inputs.grids), dtype=torch.float32)
            return HeieOutput([], nll, nll.long(), None, image_tokens)
        hidden = inner(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            mm_encoder_outputs={"image": seen},
            use_cache=False,
        ).last_hidden_state
        nll, tokens = self._likelihood(hidden, inputs)
        total = tokens.sum()
        return HeieOutput(
            heatmaps=self._maps(self._features(seen), hidden, inputs),
            nll=nll,
            tokens=tokens,
            text_loss=None if inputs.labels is None else nll.sum() / total.clamp_min(1),
            image_tokens=image_tokens,
        )

    def _likelihood(self, hidden: Tensor, inputs: HeieInputs) -> tuple[Tensor, Tensor]:
        """(B,) summed negative log-likelihood, and (B,) counts, of the labelled tokens.

        The output layer sees only the states that predict a labelled token: over a large
        vocabulary, logits of all positions would take more memory than the model's activations.
        """
        rows = inputs.input_ids.shape[0]
        if inputs.labels is None:
            return hidden.new_zeros(rows, dtype=torch.float32), hidden.new_zeros(rows).long()
        labels = inputs.labels[:, 1:]
        known = labels != IGNORE_INDEX
        logits = self.causal.lm_head(hidden[:, :-1][known]).float()
        each = F.cross_entropy(logits, labels[known], reduction="none")
        row = known.nonzero()[:, 0]
        return each.new_zeros(rows).index_add(0, row, each), known.sum(1)

    def _features(self, seen: Any) -> list[Tensor]:
        """(T, d, h, w) features of the vision tower that the mapper reads."""
        dtype = next(self.head.parameters()).dtype
        # the first of the hidden states is what goes into the first block
        levels = [seen.hidden_states[block + 1] for block in self._earlier]
        # without the class token; the others are the cells of the tile, row by row
        maps = [one[:, 1:].to(dtype).transpose(1, 2) for one in (*levels, seen.last_hidden_state)]
        return [one.unflatten(2, (self._cells, -1)) for one in maps]

    def _maps(
        self, features: list[Tensor], hidden: Tensor, inputs: HeieInputs
    ) -> list[HeatmapOutput]:
        """Heatmaps, from `_features` and the language model's (B, L, D)."""
        dtype = features[0].dtype
        thumbnails, tiles = piece_indices(inputs.grids)
        score_at = inputs.input_ids == self.processing.score_id
        map_at = inputs.input_ids == self.processing.map_id
        counts = [1 + rows * columns for rows, columns in inputs.grids]
        if map_at.sum(1).tolist() != counts or bool((score_at.sum(1) != 1).any()):
            raise ValueError(
                f"rows have {map_at.sum(1).tolist()} map and {score_at.sum(1).tolist()} score "
                f"tokens, but grids {inputs.grids} need {counts} and one each"
            )
        maps = hidden[map_at].to(dtype).split(counts)
        tokens = Tokens(
            global_map=torch.stack([one[:1] for one in maps]),
            local_map=torch.cat([one[1:] for one in maps])[:, None],
            score=hidden[score_at].to(dtype),
        )
        whole, local, score = self.head.map_pieces(
            [level[thumbnails] for level in features], [level[tiles] for level in features], tokens
        )
        return self.head.assemble(whole, local, score, inputs.grids)


def piece_indices(grids: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Rows of ``HeieInputs.pixel_values`` that are thumbnails (one per image), and tiles."""
    thumbnails: list[int] = []
    tiles: list[int] = []
    start = 0
    for rows, columns in grids:
        count = rows * columns
        tiles += range(start, start + count)
        start += count
        if count > 1:
            start += 1
        thumbnails.append(start - 1)
    return thumbnails, tiles


class MapTokens:
    """Logits processor that extends the first map token to a run of exactly 1 + N.

    Tokens that stand for images are never generated, since a later forward pass would look for
    tiles that do not exist, nor are control words of the chat format.

    Args:
        grids: (rows, columns) of each image of the batch.
        prompt: number of tokens before the answers, L.
        map_id, forbidden: see `HeieProcessing`.
    """

    def __init__(
        self, grids: Sequence[tuple[int, int]], prompt: int, map_id: int, forbidden: Sequence[int]
    ) -> None:
        self._counts = [1 + rows * columns for rows, columns in grids]
        self._prompt, self._map, self._forbidden = prompt, map_id, list(forbidden)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token after (B, L + n) ids, -inf where not allowed."""
        scores = scores.clone()
        scores[:, self._forbidden] = -torch.inf
        written = (input_ids[:, self._prompt :] == self._map).sum(1).tolist()
        for row, (count, needed) in enumerate(zip(written, self._counts, strict=True)):
            if 0 < count < needed:
                scores[row] = -torch.inf
                scores[row, self._map] = 0.0
            elif count >= needed:
                scores[row, self._map] = -torch.inf
        return scores


def generate_texts(
    model: HEIE, images: Sequence[UInt8Array], questions: Sequence[str | None] | None = None
) -> list[str]:
    """Generate an answer for each (H, W, 3) sRGB image, by greedy decoding.

    Texts have at most ``mllm.max_new_tokens`` tokens; they may lack marks or end early.
    ``mllm.sequence_bias`` makes some of them more or less probable.

    Raises:
        ArtifactNetError: see `HeieProcessing.prompt`.
    """
    processing = model.processing
    inputs = processing.prompt(images, questions).to(model.device)
    length = inputs.input_ids.shape[1]
    rule = MapTokens(inputs.grids, length, processing.map_id, processing.forbidden_ids)
    biases = [[processing.tokenize(text), float(x)] for text, x in model.mllm.sequence_bias.items()]
    with evaluating(model), torch.no_grad():
        ids = model.causal.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=inputs.pixel_values,
            logits_processor=[rule],
            sequence_bias=biases or None,
            max_new_tokens=model.mllm.max_new_tokens,
            do_sample=False,
            eos_token_id=processing.end_id,
            pad_token_id=processing.pad_id,
        )
    return [processing.decode(row[length:]) for row in ids]


def build_heie(config: Config, device: str | torch.device = "cpu") -> HEIE:
    """A HEIE to train: base model, adapters, and a mapper and scorer with random weights.

    Of the base, what `choose_weights` says is trained; mapper and scorer always. The caller seeds.

    Raises:
        ArtifactNetError: the base cannot be used, or ``model.heatmap.tile`` is not its tile size.
    """
    model = assemble_heie(config.mllm, config.model.heatmap, device, training=True)
    if config.mllm.gradient_checkpointing:
        model.causal.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def assemble_heie(
    mllm: MllmConfig,
    heatmap: HeatmapConfig,
    device: str | torch.device = "cpu",
    training: bool = False,
) -> HEIE:
    """`build_heie` without gradient checkpointing.

    With ``training``, a base without adapters is kept in float32; see `load_base`.
    """
    processing = load_heie_processing(mllm, heatmap)
    tuned = training and not mllm.lora_rank
    base = load_base(mllm, len(processing.processor.tokenizer), device, tuned)
    mllm = pin_base(mllm, base)
    base = choose_weights(base, mllm, [processing.map_id, processing.score_id])
    return HEIE(base, processing, copy.deepcopy(heatmap), mllm).to(device)
