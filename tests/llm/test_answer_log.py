"""The answer log: no answer is lost, no damaged line is believed."""

import json
import os
import subprocess
import sys
import threading

import pytest

from artifactnet.llm.answer_log import AnswerLog
from artifactnet.llm.client import Answer
from artifactnet.types import ArtifactNetError

KEY = {"stage": "analysis", "image": "ab", "model": "m"}
OTHER = {**KEY, "image": "cd"}
ODD = Answer("one\nline \u2028 \ufffd", "stop")


def filled(path):
    with AnswerLog(path) as log:
        log.add(KEY, ODD, "a.png")
        log.add(OTHER, Answer("other", ""), "b.png")
        log.add(KEY, Answer("two", "length"), "a.png")
        assert log.added == 3
    return path


def test_answers_come_back_in_order(tmp_path):
    path = filled(tmp_path / "new" / "log.jsonl")
    with AnswerLog(path) as log:
        assert log.answers(dict(reversed(KEY.items()))) == [ODD, Answer("two", "length")]
        assert log.answers({**KEY, "image": "none"}) == []
        assert log.has_answer("analysis", "m")
        assert not log.has_answer("analysis", "other")
        assert not log.has_answer("formatting", "m")
        assert (log.warnings, log.added) == ((), 0)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["note"] for row in rows] == ["a.png", "b.png", "a.png"]


def test_half_written_last_line_is_cut_off_with_a_warning(tmp_path, caplog):
    whole = filled(tmp_path / "whole").read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start, len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:end])
        with AnswerLog(path) as log:
            assert len(log.answers(KEY)) == 1
            assert len(log.answers(OTHER)) == 1
            assert bool(log.warnings) == (end > start)
            assert [record.getMessage() for record in caplog.records] == list(log.warnings)
            caplog.clear()
            log.add(KEY, Answer("again", ""), "")
        with AnswerLog(path) as log:
            assert [answer.text for answer in log.answers(KEY)][1:] == ["again"]
            assert log.warnings == ()


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "null", '"key text finish"', "[" * 100_000),
        '{"key": {"a": 1}, "text": "", "finish": ""}',
        '{"key": {}, "text": null, "finish": ""}',
        '{"key": {}, "finish": ""}',
    ],
)
def test_damaged_line_is_named_and_the_file_left_alone(tmp_path, line):
    path = filled(tmp_path / "log")
    damaged = line + "\n" + path.read_text()
    path.write_text(damaged)
    with pytest.raises(ArtifactNetError, match=f"{path}:1"):
        AnswerLog(path)
    assert path.read_text() == damaged


def test_full_disk_leaves_no_partial_line(tmp_path, monkeypatch):
    path = filled(tmp_path / "log")
    before = path.read_bytes()
    real, calls = os.write, []

    def full(number, data):
        calls.append(data)
        if len(calls) == 1:
            return real(number, data[:10])
        raise OSError(28, "No space left on device")

    with AnswerLog(path) as log:
        with monkeypatch.context() as patch:
            patch.setattr("artifactnet.llm.answer_log.os.write", full)
            with pytest.raises(OSError, match="No space"):
                log.add(KEY, Answer("x" * 100, ""), "")
        assert path.read_bytes() == before
        assert len(log.answers(KEY)) == 2
        log.add(KEY, Answer("now it fits", ""), "")
    with AnswerLog(path) as log:
        assert log.answers(KEY)[-1].text == "now it fits"


def test_threads_write_whole_lines(tmp_path):
    with AnswerLog(tmp_path / "log") as log:

        def write(letter):
            for _ in range(5):
                log.add(KEY, Answer(letter * 5000, ""), "")

        threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with AnswerLog(tmp_path / "log") as log:
        assert len(log.answers(KEY)) == 20
        assert {len(set(answer.text)) for answer in log.answers(KEY)} == {1}


def test_one_question_is_asked_by_one_thread_at_a_time(tmp_path):
    inside = threading.Event()
    order = []
    with AnswerLog(tmp_path / "log") as log:

        def late():
            inside.wait(5)
            with log.exclusive(dict(KEY)):
                order.append("late")

        thread = threading.Thread(target=late)
        thread.start()
        with log.exclusive(KEY):
            inside.set()
            with log.exclusive(OTHER):  # other questions are not blocked
                thread.join(0.1)
                order.append("early")
        thread.join(5)
    assert order == ["early", "late"]


@pytest.mark.skipif(os.name != "posix", reason="files are locked on POSIX systems only")
def test_second_process_is_refused(tmp_path):
    path = tmp_path / "log"
    code = (
        "import sys, fcntl\nf = open(sys.argv[1], 'ab')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ArtifactNetError, match=str(path)):
            AnswerLog(path)
        process.stdin.close()
        process.wait(10)
    AnswerLog(path).close()
