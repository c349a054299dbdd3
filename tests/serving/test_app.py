"""Endpoints: answers, refusals, the key, figures, and the OpenAPI document."""

import asyncio
import base64
import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_stubs import KEY, GatedPredictor, make_service, png

from artifactnet.inference.lines import predict_lines
from artifactnet.serving import schema
from artifactnet.serving.app import make_app

parser = pytest.importorskip("prometheus_client.parser", reason="needs the extra serve")
CANNED = ["probability is 1 - score"]


@pytest.fixture
def serve():
    """Runs a coroutine function with a client of a service."""
    services = []

    def run(talk, key=None, headers=None, **settings):
        service = make_service(**settings)
        services.append(service)

        async def main():
            transport = httpx.ASGITransport(make_app(service, key), raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://x", headers=headers, timeout=60
            ) as client:
                return await talk(client, service)

        return asyncio.run(main())

    yield run
    for service in services:
        service.predictor.gate.set()
        service.batcher.close()


def files(*contents):
    return [("images", (f"{k}.png", content)) for k, content in enumerate(contents)]


def test_answers_have_the_fields_of_predictions_jsonl(serve, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(51))
    lines = []
    predict_lines(GatedPredictor(), [path], lines.append)

    async def talk(client, service):
        return await client.post("/v1/predict", files=files(png(51)))

    answer = serve(talk)
    assert answer.status_code == 200
    document = answer.json()
    assert document["model"] == "canned"
    (found,) = document["predictions"]
    assert list(found) == list(lines[0])
    assert found["path"] == "0.png"
    assert found["bytes"] == path.stat().st_size
    differ = {key for key in found if found[key] != lines[0][key]}
    assert differ <= {"path", "modified", "generator", "uid"}  # of a file and its folder


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_several_images_one_of_them_broken(serve, form):
    contents = [png(51), b"no image", png(204)]

    async def talk(client, service):
        if form == "multipart":
            return await client.post("/v1/predict", files=files(*contents))
        entries = [{"data": base64.b64encode(each).decode()} for each in contents]
        return await client.post("/v1/predict", json={"images": entries})

    answer = serve(talk)
    assert answer.status_code == 200
    first, broken, last = answer.json()["predictions"]
    names = (
        ["0.png", "1.png", "2.png"] if form == "multipart" else ["image 1", "image 2", "image 3"]
    )
    assert [row["path"] for row in (first, broken, last)] == names
    assert (first["probability"], last["probability"]) == (0.8, pytest.approx(0.2))
    assert (first["verdict"], last["verdict"]) == ("fake", "real")
    assert broken == {"path": names[1], "error": "not an image that Pillow can read"}


def test_no_usable_image_is_422_with_a_reason_in_one_line(serve):
    async def talk(client, service):
        name = "../..\n\u202epasswd"
        sent = [("images", (name, b"x")), ("images", ("b", png(1, (300, 400))))]
        return await client.post("/v1/predict", files=sent)

    answer = serve(talk, max_pixels=100_000)
    document = answer.json()
    assert answer.status_code == 422
    assert re.fullmatch(r".*: not an image that Pillow can read \(and 1 more\)", document["detail"])
    assert "above this server's limit of 0.1 megapixels" in document["predictions"][1]["error"]
    schema.UnusableAnswer.model_validate(document)


def test_a_heatmap_is_a_png_of_the_images_size(serve):
    async def talk(client, service):
        return await client.post("/v1/heatmap", files=files(png(51, (20, 30), green=102)))

    answer = serve(talk)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert float(answer.headers["x-probability"]) == 0.8
    assert answer.headers["x-verdict"] == "fake"
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.mode, picture.size) == ("L", (30, 20))
    assert (np.asarray(picture) == 102).all()


def test_heatmaps_that_are_refused(serve):
    async def talk(client, service):
        two = await client.post("/v1/heatmap", files=files(png(1), png(2)))
        broken = await client.post("/v1/heatmap", files=files(b"x"))
        return two, broken

    two, broken = serve(talk)
    assert (two.status_code, two.json()) == (
        413,
        {"detail": "more than 1 images in one request; send fewer"},
    )
    assert (broken.status_code, broken.json()["detail"][:20]) == (422, "0.png: not an image ")

    async def ask(client, service):
        return await client.post("/v1/heatmap", files=files(png(1)))

    without = serve(ask, heatmap=False)
    assert (without.status_code, without.json()["detail"]) == (
        501,
        "canned makes no heatmap; /v1/predict answers",
    )


def test_maps_are_made_only_where_they_are_asked_for(serve):
    async def talk(client, service):
        seen = []
        original = service.predictor._answer

        def answer(image, heatmaps):
            seen.append(heatmaps)
            return original(image, heatmaps)

        service.predictor._answer = answer
        for question in ("", "?instances=false", "?instances=true"):
            await client.post(f"/v1/predict{question}", files=files(png(1)))
        wrong = await client.post("/v1/predict?instances=7", files=files(png(1)))
        return seen, wrong

    seen, wrong = serve(talk)
    assert seen == [False, False, True]
    assert wrong.status_code == 422
    assert wrong.json()["detail"].startswith("instances: Input should be a valid boolean")


def test_concurrent_requests_share_batches(serve):
    async def talk(client, service):
        service.predictor.gate.clear()
        first = asyncio.create_task(client.post("/v1/predict", files=files(png(0))))
        await asyncio.to_thread(service.predictor.entered.wait, 20)
        rest = [
            asyncio.create_task(client.post("/v1/predict", files=files(png(red))))
            for red in range(1, 9)
        ]
        while len(service.batcher._ready) < 8:
            await asyncio.sleep(0.01)
        service.predictor.gate.set()
        answers = await asyncio.gather(first, *rest)
        return [a.json()["predictions"][0]["score"] for a in answers], service.predictor.sizes

    scores, sizes = serve(talk)
    assert scores == [red / 255 for red in range(9)]
    assert sizes == [1, 8]


def test_a_full_queue_is_503_with_retry_after_and_no_memory(serve):
    async def talk(client, service):
        service.predictor.gate.clear()
        held = asyncio.create_task(client.post("/v1/predict", files=files(png(0), png(1))))
        while service.batcher.held < 2:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(
            *(client.post("/v1/predict", files=files(png(2))) for _ in range(200))
        )
        health = await client.get("/healthz")
        buffered = service._buffered.held
        service.predictor.gate.set()
        return (await held), answers, health, buffered, service

    held, answers, health, buffered, service = serve(talk, queue=2, max_images=2)
    assert held.status_code == health.status_code == 200
    assert {a.status_code for a in answers} == {503}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers)
    assert answers[0].json()["detail"] == "the server has more images than it can answer soon"
    assert buffered < 2000
    assert service._buffered.held == service.batcher.held == 0


def test_a_slow_answer_is_504_and_its_images_are_dropped(serve):
    async def talk(client, service):
        service.predictor.gate.clear()
        first = asyncio.create_task(client.post("/v1/predict", files=files(png(0))))
        await asyncio.to_thread(service.predictor.entered.wait, 20)
        second = await client.post("/v1/predict", files=files(png(1)))
        first = await first
        held = service._buffered.held
        service.predictor.gate.set()
        while service._buffered.held:
            await asyncio.sleep(0.01)
        good = await client.post("/v1/predict", files=files(png(2)))
        return first, second, held, good, service

    first, second, held, good, service = serve(talk, timeout=0.5)
    assert [a.status_code for a in (first, second, good)] == [504, 504, 200]
    assert second.json()["detail"] == "no answer after 0.5 s; send fewer images"
    assert held > 0  # the images are still there as long as the model has them
    assert sum(service.predictor.sizes) == 2


def test_a_bug_is_500_for_its_image_alone(serve):
    async def talk(client, service):
        wrong, good = await asyncio.gather(
            client.post("/v1/predict", files=files(png(77))),
            client.post("/v1/predict", files=files(png(51))),
        )
        return wrong, good, await client.get("/healthz")

    wrong, good, health = serve(talk)
    assert (wrong.status_code, good.status_code, health.status_code) == (500, 200, 200)
    assert wrong.json() == {"detail": "an error of the server, which its log describes"}


def test_the_key(serve):
    async def talk(client, service):
        found = {}
        for path in ("/v1/models", "/metrics", "/healthz", "/readyz", "/docs", "/openapi.json"):
            found[path] = (await client.get(path)).status_code
        refused = await client.post("/v1/predict", files=files(png(1)))
        wrong = [
            await client.get("/v1/models", headers={"Authorization": value})
            for value in (f"Bearer {KEY}x", "Bearer", f"Basic {KEY}", "Bearer \u00fc".encode(), KEY)
        ]
        right = await client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        return found, refused, wrong, right

    found, refused, wrong, right = serve(talk, key=KEY)
    assert found == {
        "/v1/models": 401, "/metrics": 401, "/healthz": 200, "/readyz": 200, "/docs": 200,
        "/openapi.json": 200,
    }  # fmt: skip
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["connection"] == "close"  # the body was not read
    assert {answer.status_code for answer in wrong} == {401}
    assert right.status_code == 200


def test_models_states_and_headers(serve):
    async def talk(client, service):
        models = await client.get("/v1/models")
        ready = await client.get("/readyz")
        service.stopping = True
        stopping, alive = await client.get("/readyz"), await client.get("/healthz")
        service.batcher.close()
        return models, ready, stopping, alive, await client.get("/healthz")

    models, ready, stopping, alive, dead = serve(talk)
    (model,) = schema.ModelsAnswer.model_validate(models.json()).models
    assert (model.name, model.threshold, model.heatmap) == ("canned", 0.5, True)
    assert [a.status_code for a in (ready, stopping, alive, dead)] == [200, 503, 200, 503]
    assert models.headers["cache-control"] == "no-store"
    assert models.headers["x-content-type-options"] == "nosniff"


def test_wrong_paths_and_methods(serve):
    async def talk(client, service):
        return (
            await client.get("/v1/nothing"),
            await client.get("/v1/predict"),
            await client.get("/v1/../../etc/passwd"),
            await client.get("/metrics"),
        )

    missing, method, outside, figures = serve(talk)
    assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert outside.status_code == 404
    assert "nothing" not in figures.text  # or strangers would make labels


def test_metrics_count_what_happened(serve):
    async def talk(client, service):
        await client.post("/v1/predict", files=files(png(51), png(204), b"x"))
        await client.post("/v1/heatmap", files=files(png(51)))
        await client.post("/v1/predict", content=b"", headers={"content-type": "text/plain"})
        await client.get("/nothing")
        return await client.get("/metrics")

    answer = serve(talk)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    expected = {
        ("artifactnet_requests_total", "/v1/predict", "200"): 1,
        ("artifactnet_requests_total", "/v1/predict", "415"): 1,
        ("artifactnet_requests_total", "/v1/heatmap", "200"): 1,
        ("artifactnet_requests_total", "404", "other"): 1,
        ("artifactnet_request_seconds_count", "/v1/predict"): 2,
        ("artifactnet_images_total", "fake"): 2,
        ("artifactnet_images_total", "real"): 1,
        ("artifactnet_images_total", "failed"): 1,
        ("artifactnet_batch_images_sum",): 3,
        ("artifactnet_queue_images",): 0,
        ("artifactnet_buffered_bytes",): 0,
        ("artifactnet_model", "0", "canned", "cpu", "torch"): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found[("process_resident_memory_bytes",)] > 1e6


def test_the_openapi_document_describes_all_of_it(serve):
    async def talk(client, service):
        answers = [await client.post("/v1/predict", files=files(png(1), b"x"))]
        return (await client.get("/openapi.json")).json(), answers

    document, (answer,) = serve(talk, key=KEY, headers={"Authorization": f"Bearer {KEY}"})
    operations = {
        path: operation for path, item in document["paths"].items() for operation in item.values()
    }
    assert set(operations) == {
        "/v1/predict", "/v1/heatmap", "/v1/models", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    for path, operation in operations.items():
        assert operation["summary"]
        assert operation["description"]
        assert ("security" in operation) == (path not in ("/healthz", "/readyz"))
    for path in ("/v1/predict", "/v1/heatmap"):
        content = operations[path]["requestBody"]["content"]
        assert set(content) == {"multipart/form-data", "application/json"}
        for status in ("400", "401", "408", "413", "415", "422", "503", "504"):
            assert operations[path]["responses"][status]["content"]
    fields = document["components"]["schemas"]["ImageAnswer"]["properties"]
    assert set(fields) == set(answer.json()["predictions"][0])
    schema.PredictAnswer.model_validate(answer.json())


def test_no_image_and_no_name_is_logged_or_kept(serve, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    damaged = png(51)[:-20] + b"\x00" * 20

    async def talk(client, service):
        for content in (png(51), damaged, b"x"):
            await client.post("/v1/predict", files=[("images", ("secret-name.png", content))])

    with caplog.at_level("DEBUG"):
        serve(talk)
    assert not [
        r for r in caplog.records if "secret-name" in r.getMessage() and "httpx" not in r.name
    ]
    assert list(Path(tmp_path).iterdir()) == []
