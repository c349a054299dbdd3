"""Identical files: found all, and only, and without opening those that cannot matter."""

from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data import duplicates
from artifactnet.data.duplicates import find_identical_files

# Contents that agree in size, or in size and middle, more often than chance.
bodies = st.builds(
    lambda size, head, middle: (
        head + b"." * size + middle + b"." * (size - len(middle)) if size else head
    ),
    st.sampled_from([0, 10, 9000]),
    st.sampled_from([b"a", b"b"]),
    st.sampled_from([b"x", b"y"]),
)


def write(folder, contents):
    paths = []
    for index, body in enumerate(contents):
        path = folder / f"{index}.bin"
        path.write_bytes(body)
        paths.append(str(path))
    return paths


@given(st.lists(st.tuples(bodies, st.sampled_from("AB")), max_size=12))
@settings(max_examples=60, deadline=None)
def test_equals_the_comparison_of_every_pair(tmp_path_factory, files):
    paths = write(tmp_path_factory.mktemp("files"), [body for body, _ in files])
    groups = [group for _, group in files]
    expected = {}
    for index, (body, _) in enumerate(files):
        expected.setdefault(body, []).append(index)
    sets = [same for same in expected.values() if len(same) > 1]
    assert find_identical_files(paths) == sorted(sets)
    spanning = [same for same in sets if len({groups[k] for k in same}) > 1]
    assert find_identical_files(paths, groups) == sorted(spanning)


def test_opens_nothing_that_cannot_matter(tmp_path, monkeypatch):
    paths = write(tmp_path, [b"1", b"22", b"333", b"333"])
    monkeypatch.setattr(duplicates, "open", None, raising=False)
    assert find_identical_files(paths, ["train", "test", "train", "train"]) == []


def test_an_unreadable_file_equals_no_other(tmp_path):
    paths = [str(tmp_path / "gone"), str(tmp_path / "gone too"), *write(tmp_path, [b"1", b"1"])]
    assert find_identical_files(paths) == [[2, 3]]
