"""Images share forward passes, nothing is lost, and there is never more than there may be."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from serving_stubs import GatedPredictor, png

from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.serving.batcher import Batcher, Cancelled, QueueFull
from artifactnet.types import ArtifactNetError


def allow(image):
    pass


@pytest.fixture
def predictor():
    return GatedPredictor()


@pytest.fixture
def make(predictor):
    made = []

    def build(check=allow, **options):
        defaults = {"max_batch": 4, "wait": 0.0, "capacity": 16, "workers": 2}
        made.append(Batcher(predictor, check, **{**defaults, **options}))
        return made[-1]

    yield build
    predictor.gate.set()
    for each in made:
        each.close()


def images(*reds):
    return [ImageInput(f"red {red}", png(red)) for red in reds]


def probability(source, prediction):
    assert source.image == b""  # the content is gone
    return round(prediction.probability, 6)


def results(submission, seconds=20):
    return [future.result(seconds) for future in submission.answers]


def expected(*reds):
    return [round(1 - red / 255, 6) for red in reds]


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_answers_keep_their_order_whatever_shares_a_batch(make, predictor):
    batcher, options = make(), predictor.options()
    with ThreadPoolExecutor(8) as clients:
        reds = [[(31 * k + n) % 256 for n in range(2)] for k in range(8)]
        reds = [[red + (red == 77) for red in pair] for pair in reds]
        found = clients.map(lambda pair: batcher.submit(images(*pair), options, probability), reds)
        assert [results(one) for one in found] == [expected(*pair) for pair in reds]
    assert batcher.held == 0


def test_images_that_came_meanwhile_share_a_batch(make, predictor):
    sizes = []
    batcher = make(report=lambda images, seconds: sizes.append(images))
    options = predictor.options()
    predictor.gate.clear()
    first = batcher.submit(images(1), options, probability)
    assert predictor.entered.wait(20)
    rest = [batcher.submit(images(red), options, probability) for red in range(2, 8)]
    until(lambda: len(batcher._ready) == 6)
    predictor.gate.set()
    assert [results(one) for one in (first, *rest)] == [expected(red) for red in range(1, 8)]
    assert predictor.sizes == [1, 4, 2]
    until(lambda: sizes == [1, 4, 2])


def test_an_image_waits_only_while_another_is_being_decoded(make, predictor):
    hold, decoding = threading.Event(), threading.Event()

    def check(image):
        if image.name == "red 2":
            decoding.set()
            assert hold.wait(20)

    batcher, options = make(check, wait=5.0), predictor.options()
    begin = time.monotonic()
    results(batcher.submit(images(1), options, probability))
    assert time.monotonic() - begin < 4  # nothing else was on its way
    late = batcher.submit(images(2), options, probability)
    assert decoding.wait(20)
    early = batcher.submit(images(3), options, probability)
    until(lambda: len(batcher._ready) == 1)
    hold.set()
    assert results(late) + results(early) == expected(2, 3)
    assert predictor.sizes == [1, 2]


def test_an_image_waits_no_longer_than_it_may(make, predictor):
    hold = threading.Event()

    def check(image):
        assert image.name != "red 2" or hold.wait(20)

    batcher, options = make(check, wait=0.05), predictor.options()
    slow = batcher.submit(images(2), options, probability)
    assert results(batcher.submit(images(3), options, probability)) == expected(3)
    hold.set()
    assert results(slow) == expected(2)


def test_options_do_not_mix(make, predictor):
    batcher = make()
    predictor.gate.clear()

    def has_map(source, prediction):
        return prediction.heatmap is not None

    first = batcher.submit(images(1), predictor.options(), has_map)
    assert predictor.entered.wait(20)
    bare = batcher.submit(images(2, 3), predictor.options(heatmaps=False), has_map)
    maps = batcher.submit(images(4, 5), predictor.options(), has_map)
    until(lambda: len(batcher._ready) == 4)
    predictor.gate.set()
    assert [results(x) for x in (first, bare, maps)] == [[True], [False, False], [True, True]]
    assert predictor.sizes == [1, 2, 2]


def test_the_queue_is_bounded_and_takes_all_or_nothing(make, predictor):
    batcher, options = make(capacity=3), predictor.options()
    predictor.gate.clear()
    first = batcher.submit(images(1, 2), options, probability)
    with pytest.raises(QueueFull):
        batcher.submit(images(3, 4), options, probability)
    second = batcher.submit(images(3), options, probability)
    with pytest.raises(QueueFull):
        batcher.need_room()
    assert batcher.held == 3
    predictor.gate.set()
    assert results(first) + results(second) == expected(1, 2, 3)
    assert results(batcher.submit(images(5, 6, 7), options, probability)) == expected(5, 6, 7)


def test_a_full_queue_says_when_there_will_be_room(make, predictor):
    batcher, options = make(capacity=4, max_batch=1), predictor.options()
    predictor.gate.clear()
    slow = batcher.submit(images(1), options, probability)
    time.sleep(0.2)
    predictor.gate.set()
    results(slow)
    until(lambda: batcher._seconds_per_image > 0)
    predictor.gate.clear()
    batcher.submit(images(1, 2, 3, 4), options, probability)
    with pytest.raises(QueueFull) as full:
        batcher.need_room()
    assert 0.2 * 4 * 0.9 < full.value.retry_after < 60


def test_unusable_images_fail_alone(make, predictor):
    def check(image):
        if image.name == "red 2":
            raise ArtifactNetError("red 2: not today")

    batcher, options = make(check), predictor.options()
    broken = ImageInput("broken", b"no image")
    found = results(batcher.submit([*images(1, 2), broken], options, probability))
    assert found[:2] == [*expected(1), Failure("red 2", "not today")]
    assert isinstance(found[2], Failure)
    assert found[2].reason.startswith("not an image")
    assert batcher.held == 0


def test_a_bug_about_one_image_spares_those_that_came_with_it(make, predictor):
    batcher, options = make(), predictor.options()
    found = batcher.submit(images(1, 77, 3), options, probability)
    wait(found.answers, 20)
    assert [found.answers[k].result() for k in (0, 2)] == expected(1, 3)
    with pytest.raises(RuntimeError, match="a bug in the model"):
        found.answers[1].result()
    assert results(batcher.submit(images(4), options, probability)) == expected(4)


def test_a_bug_in_what_the_caller_does_reaches_the_caller(make, predictor):
    batcher = make()
    found = batcher.submit(images(1), predictor.options(), lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.answers[0].result(20)
    assert batcher.is_alive


def test_what_is_cancelled_never_reaches_the_model(make, predictor):
    batcher, options = make(max_batch=2, workers=1), predictor.options()
    predictor.gate.clear()
    first = batcher.submit(images(1), options, probability)
    assert predictor.entered.wait(20)
    unwanted = batcher.submit(images(2, 3), options, probability)
    wanted = batcher.submit(images(4), options, probability)
    unwanted.cancel()
    predictor.gate.set()
    assert results(first) + results(wanted) == expected(1, 4)
    for future in unwanted.answers:
        with pytest.raises(Cancelled):
            future.result(20)
    assert sum(predictor.sizes) == 2
    assert batcher.held == 0


def test_closing_answers_what_is_there(make, predictor):
    batcher, options = make(), predictor.options()
    predictor.gate.clear()
    found = [batcher.submit(images(red), options, probability) for red in range(9)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    predictor.gate.set()
    assert [results(one) for one in found] == [expected(red) for red in range(9)]
    closing.join(20)
    assert not batcher.is_alive
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(images(1), options, probability)
