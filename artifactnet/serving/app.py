"""The endpoints of ``artifactnet serve``: the only user of FastAPI and Starlette."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from artifactnet.inference.base import BasePredictor
from artifactnet.inference.folder import encode_heatmap
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.lines import Version, make_line
from artifactnet.names import visible
from artifactnet.serving import metrics, schema
from artifactnet.serving.batcher import Batcher, QueueFull, Submission
from artifactnet.serving.exchange import ExchangeGuard
from artifactnet.serving.guard import check_header
from artifactnet.serving.refused import Refused
from artifactnet.serving.settings import API_KEY_VARIABLE, ServerSettings
from artifactnet.serving.uploads import Buffered, Share, as_refused, read_uploads
from artifactnet.types import Prediction

T = TypeVar("T")
CLIENT_GONE = 499  # as nginx has it; nobody reads it but the metrics
_ABOUT = """Says whether images were made by AI, and where they look wrong.

Images are sent in the request; paths and URLs are not taken. An image is held in memory until it is
answered, and is neither stored nor logged. Images of different requests pass through the model
together. A request that is refused gets `{"detail": "why"}`, and if it may be repeated, status 503
with `Retry-After`.
"""
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.ErrorAnswer, "description": text}
    for status, text in {
        400: "The body cannot be read.",
        401: "The API key is missing or wrong.",
        408: "The body took too long.",
        413: "The body is too large, or has too many images.",
        415: "Neither multipart/form-data nor application/json.",
        503: "Too much to do; see the header Retry-After.",
        504: "The answer took too long.",
    }.items()
}
_BEARER = HTTPBearer(auto_error=False, description=f"The server's {API_KEY_VARIABLE}.")
_Instances = Annotated[bool, Query(description="Also find regions by category, which takes maps.")]


class _ClientGone(Exception):
    """The client closed the connection before it had its answer."""


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    """About one image: its name as the client has it, its bytes, and what became of it."""

    path: str
    size: int
    found: T | Failure


class Service:
    """A predictor behind a batcher, and what its requests share.

    Args:
        predictor: of any kind; from now on it belongs to the service.
        model: describes it.
        settings: the limits.

    Attributes:
        stopping: ``/readyz`` says so; set by whoever runs the service.
    """

    def __init__(
        self, predictor: BasePredictor, model: schema.ModelAnswer, settings: ServerSettings
    ) -> None:
        self.predictor, self.model, self.settings = predictor, model, settings
        self.stopping = False
        self._buffered = Buffered(settings.max_buffered)
        about = {name: getattr(model, name) for name in ("name", "backend", "device", "version")}
        self.metrics = metrics.ServerMetrics(
            lambda: self.batcher.held, lambda: self._buffered.held, about
        )
        self.batcher = Batcher(
            predictor,
            self._check,
            max_batch=settings.max_batch or predictor.default_batch_size,
            wait=settings.batch_wait,
            capacity=settings.queue,
            workers=settings.decoders,
            report=self.metrics.count_batch,
        )

    def _check(self, image: ImageInput) -> None:
        assert isinstance(image.image, bytes)  # never a path
        check_header(image.image, image.name, self.settings.max_pixels)

    async def answer(
        self,
        request: Request,
        max_images: int,
        heatmaps: bool,
        finish: Callable[[ImageInput, Prediction], T],
    ) -> list[_Answer[T]]:
        """Read the images of a request and predict them.

        Args:
            request: whose body has not been read.
            max_images: that it may have.
            heatmaps: make maps.
            finish: see `Batcher.submit`.

        Raises:
            Refused: the request, or there is no room or time for it.
        """
        share = self._buffered.open()
        try:
            self.batcher.need_room()  # or the body is not even read
            uploads = await read_uploads(
                request.headers,
                request.stream(),
                share,
                max_bytes=self.settings.max_bytes,
                max_images=max_images,
                timeout=self.settings.timeout,
            )
            # names of clients go into the answer and nowhere else: errors and logs use these
            images = [ImageInput(f"image {k + 1}", u.content) for k, u in enumerate(uploads)]
            options = self.predictor.options(heatmaps=heatmaps)
            submission = self.batcher.submit(images, options, finish)
        except QueueFull as full:
            share.release()
            raise as_refused(full) from None
        except BaseException:
            share.release()
            raise
        sent = [(u.name or i.name, len(u.content)) for u, i in zip(uploads, images, strict=True)]
        del uploads, images  # each is held until it is decoded
        found = await self._wait(request, submission, share)
        return [_Answer(*about, one) for about, one in zip(sent, found, strict=True)]

    async def _wait(
        self, request: Request, submission: Submission[T], share: Share
    ) -> list[T | Failure]:
        """The answers; nobody waits for them if the client leaves or the time is over."""
        waiting = [asyncio.wrap_future(future) for future in submission.answers]
        answers = asyncio.gather(*waiting, return_exceptions=True)
        answers.add_done_callback(lambda _: share.release())
        gone = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {answers, gone}
        try:
            await asyncio.wait(
                either,
                timeout=self.settings.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            gone.cancel()
            if not answers.done():
                submission.cancel()
        if answers.done():
            found = []
            for one in answers.result():
                if isinstance(one, BaseException):
                    raise one
                found.append(one)
            return found
        if gone.done():
            raise _ClientGone
        raise Refused(504, f"no answer after {self.settings.timeout:g} s; send fewer images")


def make_app(service: Service, key: str | None = None) -> ExchangeGuard:
    """The ASGI application.

    Args:
        service: answers.
        key: that clients must send as ``Authorization: Bearer KEY``, but for the state of the
            server and the documentation; None: none is needed.
    """
    version = service.model.version
    app = FastAPI(title="ArtifactNet", version=version, description=_ABOUT, redoc_url=None)
    _handle_errors(app)
    keyed = [] if key is None else [Depends(_key_check(key))]

    @app.post(
        "/v1/predict",
        summary="Predict images",
        response_model=schema.PredictAnswer,
        responses={
            **_REFUSALS,
            422: {
                "model": schema.UnusableAnswer,
                "description": "No image of the request could be used, or an option is wrong.",
            },
        },
        openapi_extra=schema.request_body(f"1 to {service.settings.max_images} image files."),
        dependencies=keyed,
        tags=["images"],
    )
    async def predict(request: Request, instances: _Instances = False) -> Any:
        """Probability of being fake, verdict and more, for every image in its order.

        An image that cannot be used has an `error` in place of an answer and does not disturb the
        others; if none can be used, the status is 422.
        """
        answers = await service.answer(
            request,
            service.settings.max_images,
            instances,
            lambda source, prediction: make_line(source, prediction, Version()),
        )
        rows = [_row(service, answer) for answer in answers]
        if all("error" in row for row in rows):
            detail = f"{visible(rows[0]['path'])}: {rows[0]['error']}"
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            content = {"detail": detail + more, "predictions": rows}
            return JSONResponse(content, 422)
        return {"model": service.model.name, "predictions": rows}

    @app.post(
        "/v1/heatmap",
        summary="Where one image looks wrong",
        response_class=Response,
        responses={
            **_REFUSALS,
            200: {
                "content": {"image/png": {}},
                "description": "8-bit gray at the image's own size, 255 times the heatmap.",
            },
            422: {"model": schema.ErrorAnswer, "description": "The image cannot be used."},
            501: {"model": schema.ErrorAnswer, "description": "The model makes no heatmap."},
        },
        openapi_extra=schema.request_body("One image file."),
        dependencies=keyed,
        tags=["images"],
    )
    async def heatmap(request: Request) -> Response:
        """The heatmap as a PNG file; its headers `X-Probability` and `X-Verdict` say the rest."""
        if not service.model.heatmap:
            raise Refused(501, f"{service.model.name} makes no heatmap; /v1/predict answers")
        (answer,) = await service.answer(request, 1, True, _draw)
        if isinstance(answer.found, Failure):
            service.metrics.count_image("failed")
            raise Refused(422, f"{answer.path}: {answer.found.reason}")
        picture, probability, verdict = answer.found
        service.metrics.count_image(verdict)
        headers = {"X-Probability": repr(probability), "X-Verdict": verdict}
        return Response(picture, media_type="image/png", headers=headers)

    @app.get(
        "/v1/models",
        summary="The model that answers",
        response_model=schema.ModelsAnswer,
        responses={401: _REFUSALS[401]},
        dependencies=keyed,
        tags=["server"],
    )
    async def models() -> Any:
        """Name, device, thresholds, what it can do, and what must be known about it."""
        return {"models": [service.model]}

    @app.get(
        "/healthz", summary="Alive", response_model=schema.StateAnswer, tags=["server"],
        responses={503: {"model": schema.StateAnswer, "description": "Restart it."}},
    )  # fmt: skip
    async def healthz() -> Any:
        """200 while the process can answer images; 503: it must be restarted."""
        alive = service.batcher.is_alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get(
        "/readyz", summary="Ready for requests", response_model=schema.StateAnswer, tags=["server"],
        responses={503: {"model": schema.StateAnswer, "description": "Send requests elsewhere."}},
    )  # fmt: skip
    async def readyz() -> Any:
        """200 if requests are welcome; 503 once the server was told to stop."""
        ready = service.batcher.is_alive and not service.stopping
        return JSONResponse({"status": "ready" if ready else "stopping"}, 200 if ready else 503)

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={401: _REFUSALS[401], 200: {"content": {metrics.CONTENT_TYPE: {}}}},
        dependencies=keyed,
        tags=["server"],
    )
    async def figures() -> Response:
        """Requests, latencies, verdicts, batch sizes, the queue and the process."""
        return Response(service.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    return ExchangeGuard(app, service.metrics.count_request)


def _row(service: Service, answer: _Answer[dict[str, Any]]) -> dict[str, Any]:
    """An image in the answer of ``/v1/predict``."""
    if isinstance(answer.found, Failure):
        service.metrics.count_image("failed")
        return {"path": answer.path, "error": answer.found.reason}
    service.metrics.count_image(answer.found["verdict"])
    return answer.found | {"path": answer.path, "bytes": answer.size}


def _draw(source: ImageInput, prediction: Prediction) -> tuple[bytes, float, str]:
    """A heatmap as PNG, the probability and the verdict; in the model's thread, map by map."""
    if prediction.heatmap is None:
        raise RuntimeError("a model with heatmaps made none")
    return encode_heatmap(prediction.heatmap), prediction.probability, prediction.verdict


def _key_check(key: str) -> Callable[..., Any]:
    expected = key.encode()

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        found = b"" if given is None else given.credentials.encode("utf-8", "replace")
        if not hmac.compare_digest(found, expected):
            raise Refused(401, "send the server's API key: Authorization: Bearer KEY")

    return check


def _handle_errors(app: FastAPI) -> None:
    """Answer every error with a ``detail`` in one line."""

    def error(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"detail": visible(detail)}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> Response:
        headers = {}
        if problem.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
        if problem.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return error(problem.status, problem.detail, headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_option(_: Request, problem: RequestValidationError) -> Response:
        found = problem.errors()[0]
        return error(422, f"{found['loc'][-1]}: {found['msg']}")

    @app.exception_handler(HTTPException)
    async def of_framework(_: Request, problem: HTTPException) -> Response:
        headers = dict(problem.headers or {})
        return error(problem.status_code, str(problem.detail), headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, problem: Exception) -> Response:
        return error(500, "an error of the server, which its log describes")

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(_ClientGone)
    async def gone(_: Request, problem: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)


async def _disconnected(request: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
