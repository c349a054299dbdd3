"""Requests and answers as the OpenAPI document describes them.

An answer has the fields of a line of ``predictions.jsonl``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_JSON_IMAGE = {
    "type": "object",
    "required": ["data"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "Repeated in the answer; used for nothing else."},
        "data": {"type": "string", "format": "byte", "description": "Image file in base64."},
    },
}


def request_body(images: str) -> dict[str, Any]:
    """The body of a request as OpenAPI describes it.

    Args:
        images: how many, in words.
    """
    file = {"type": "string", "format": "binary"}
    many = {"type": "array", "items": file, "description": images}
    document = {"type": "array", "items": _JSON_IMAGE, "description": images}
    return {
        "requestBody": {
            "required": True,
            "content": {
                kind: {
                    "schema": {
                        "type": "object",
                        "required": ["images"],
                        "properties": {"images": value},
                    }
                }
                for kind, value in (("multipart/form-data", many), ("application/json", document))
            },
        }
    }


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class InstanceAnswer(_Strict):
    """A region that looks wrong."""

    category: str = Field(description="Of X-AIGD, or `uncategorized`.")
    box: tuple[int, int, int, int] = Field(
        description="(x_min, y_min, x_max, y_max), pixels, half-open."
    )
    area: int = Field(description="Pixels.")
    confidence: float = Field(description="Mean probability of the category there, 0..1.")


class RegionAnswer(_Strict):
    """A box and caption that a vision-language model wrote."""

    bbox: list[float] = Field(description="(x_min, y_min, x_max, y_max), pixels.")
    caption: str


class ImageAnswer(_Strict):
    """What the model says about an image."""

    path: str = Field(description="As the client calls the image, else `image N`.")
    probability: float = Field(description="Of being fake, 0..1.")
    is_fake: bool = Field(description="`probability` is at least the model's threshold.")
    verdict: Literal["fake", "uncertain", "real"] = Field(
        description="`uncertain` between the limits of a calibrated model."
    )
    score: float | None = Field(description="Plausibility, 0..1 (1: nothing looks wrong), if any.")
    instances: list[InstanceAnswer] | None = Field(
        description="Regions of a model with a segmentation head; null: not computed."
    )
    warnings: list[str] = Field(description="What must be known before the answer is trusted.")
    explanation: dict[str, str] | None = Field(description="Text of a model that writes.")
    stability: dict[str, Any] | None
    regions: list[RegionAnswer] | None = Field(description="Of a model that writes them.")
    tags: list[str] | None = Field(description="Of a model that writes them.")
    generator: str | None
    uid: str | None
    heatmap: str | None = Field(description="Always null; see /v1/heatmap.")
    bytes: int | None = Field(description="Size of the image file.")
    modified: float | None


class ImageError(_Strict):
    """Why an image could not be used."""

    path: str = Field(description="As the client calls the image, else `image N`.")
    error: str


class PredictAnswer(_Strict):
    """One entry per image, in the order of the request."""

    model: str
    predictions: list[ImageAnswer | ImageError]


class UnusableAnswer(_Strict):
    """No image of the request could be used."""

    detail: str
    predictions: list[ImageError]


class ErrorAnswer(BaseModel):
    """What was wrong with a request, in one line."""

    detail: str


class ModelAnswer(_Strict):
    """The model that answers."""

    name: str
    kind: str = Field(description="Class of its predictor.")
    backend: str = Field(description="torch, onnx or openvino.")
    device: str
    version: str = Field(description="Of the package artifactnet.")
    fingerprint: str | None = Field(
        description="Equal fingerprints, equal answers; null of language models."
    )
    threshold: float = Field(description="`is_fake` from this probability on.")
    limits: tuple[float, float] | None = Field(
        description="`uncertain` from the first to below the second; null: never."
    )
    heatmap: bool = Field(description="Whether /v1/heatmap works.")
    instances: bool = Field(description="Whether it finds regions by category.")
    warnings: list[str]


class ModelsAnswer(_Strict):
    """The models of this server: one."""

    models: list[ModelAnswer]


class StateAnswer(_Strict):
    """State of the server."""

    status: str
