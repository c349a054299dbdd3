"""How strongly a vision-language model tends to each of some words as its answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.base import load_base, load_processor
from artifactnet.vlm.image_chat import ImageChat, question_messages

_ROUNDED = 6  # decimals


class FirstWords:
    """Logits of the words with which an answer could begin; loads its model when first needed.

    One image at a time: in a batch, padding would change the last digits. Thread-safe.

    Args:
        base: checkpoint of a vision-language model for transformers, by name or folder; a folder
            of LoRA adapters loads the base that it names.
        revision: branch, tag or commit of a checkpoint given by name.
        device: where it runs.

    Attributes:
        identity: what its logits depend on beside image, question and words.
    """

    def __init__(
        self, base: str, revision: str | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.identity = f"{base}{f'@{revision}' if revision else ''}"
        self._config = MllmConfig(base=base, revision=revision)
        self._device = torch.device(device)
        self._loaded: tuple[Any, ImageChat] | None = None
        self._lock = threading.Lock()

    def logits(self, image: UInt8Array, question: str, words: Sequence[str]) -> list[float]:
        """Logit of each word's first token at the first place of the answer.

        Args:
            image: (H, W, 3).
            question: asked of the model, behind the image.
            words: whose first tokens differ.

        Raises:
            ArtifactNetError: the checkpoint cannot be loaded, it cannot take an image of this
                shape, two words begin with the same token, or a logit is not finite.
        """
        with self._lock, torch.inference_mode():  # a tokenizer serves one thread
            if self._loaded is None:
                self._loaded = self._load()
            model, chat = self._loaded
            chat.check_shape((image.shape[1], image.shape[0]))
            ids = [chat.tokenize(word)[0] for word in words]
            if len(set(ids)) < len(ids):
                raise ArtifactNetError(
                    f"{self._config.base}: two of the words {', '.join(words)} begin with the same "
                    "token, so its answers cannot be told apart"
                )
            text = chat.render(question_messages(question))
            inputs = chat.encode_chats([image], [text]).to(self._device, model.dtype)
            last = model(**inputs, logits_to_keep=1).logits[0, -1].float()
        if not bool(last[ids].isfinite().all()):
            raise ArtifactNetError(f"{self._config.base}: the model's logits are not finite")
        return [round(value, _ROUNDED) for value in last[ids].tolist()]

    def _load(self) -> tuple[Any, ImageChat]:
        processor = load_processor(self._config)
        model = load_base(self._config, len(processor.tokenizer), self._device)
        # of any family: no coordinates are asked for
        return model.eval(), ImageChat(processor, model.config.model_type)
