"""Names of images as files of ours: any name fits, and two of them never meet."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.files import atomic_path, write_text
from artifactnet.names import NAME_BYTES, file_name, file_path, name_limits, unsafe_name, visible

LIMITS = (243, 2000)


def size(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))


part = st.text(
    st.one_of(
        st.sampled_from("ab.~ \n\x1b é图\U0001f600\udce9"),
        st.characters(exclude_characters="/\0"),
    ),
    min_size=1,
    max_size=300,
).filter(lambda name: name not in (".", ".."))
whole = st.lists(part, min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("name", ["a.jpg", "photo of a cat (1).png", "图.webp", "\U0001f600.jpg"])
def test_usual_names_stay(name):
    assert file_name(name) == name
    assert file_path(f"photos/{name}", LIMITS) == f"photos/{name}"


@pytest.mark.parametrize(
    "name",
    [
        "x" * 251 + ".jpg",  # 255 bytes
        "图" * 80 + "x.jpg",
        "\U0001f600" * 62 + ".webp",
        "a" * 244,
        "x." + "y" * 250,
        "line\nbreak.png",
        "\x1b[31mred.png",
        "caf\udce9.jpg",
        "...",
        " ",
    ],
)
def test_other_names_get_a_hash(name):
    short = file_name(name)
    assert size(short + ".overlay.png") <= NAME_BYTES
    assert short.isprintable()
    assert short.strip(" .")
    assert "~" in short
    assert file_name(name) == short
    extension = os.path.splitext(name)[1]
    if 1 < size(extension) < 10:
        assert short.endswith(extension)


@given(part)
def test_any_name_fits_a_small_file_system(name):
    """Encrypted folders have 143 bytes for a name."""
    assert size(file_name(name, 131)) <= 131
    assert file_name(name, 131).encode("utf-8")


@given(st.lists(whole, min_size=2, max_size=8, unique=True))
def test_different_paths_stay_different(paths):
    made = [file_path(path, LIMITS) for path in paths]
    assert len(set(made)) == len(paths)


@given(whole)
def test_a_made_name_is_never_that_of_another_path(path):
    made = file_path(path, LIMITS)
    if made != path:
        assert file_path(made, LIMITS) != made


@pytest.mark.parametrize("name", ["a", "a.jpg", "x" * 300])
def test_pictures_of_two_images_do_not_meet(name):
    def pictures(path: str) -> set[str]:
        made = file_path(path, LIMITS)
        return {f"{made}.png", f"{made}.overlay.png"}

    others = (f"{name}.overlay", f"{name}.png/b", f"{name}.PNG/b", file_path(name, LIMITS) + "~")
    for other in others:
        assert not pictures(name) & pictures(other)
    # no folder of one is a picture of the other
    assert f"{name}.png" not in file_path(f"{name}.png/b", LIMITS).split("/")


def test_long_paths_fit(tmp_path):
    deep = "/".join(["folder" * 20] * 40) + "/a.jpg"
    made = file_path(deep, name_limits(tmp_path))
    other = file_path(deep.replace("folder", "FOLDER", 1), name_limits(tmp_path))
    assert made != other
    assert made.endswith("/a.jpg")
    with atomic_path(tmp_path / "heatmaps" / f"{made}.overlay.png") as temporary:
        temporary.write_bytes(b"x")
    assert (tmp_path / "heatmaps" / f"{made}.overlay.png").read_bytes() == b"x"


def test_limits_are_those_of_the_file_system(tmp_path, monkeypatch):
    limits = {"PC_NAME_MAX": 143, "PC_PATH_MAX": 1024}
    monkeypatch.setattr(os, "pathconf", lambda path, name: limits[name])
    name, path = name_limits(tmp_path / "not" / "there")
    assert name == 143 - len(".overlay.png")
    assert path < 1024 - len(str(tmp_path))


@pytest.mark.parametrize("name", ["x" * 255, "图" * 85, "\U0001f600" * 63 + "abc"])
def test_a_file_of_the_longest_name_is_written_atomically(tmp_path, name):
    assert size(name) == 255
    write_text(tmp_path / name, "caf\udce9")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"caf\\udce9"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\u000ab"),
        ("\x1b[2J", "\\u001b[2J"),
        ("\udce9", "\\udce9"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("é 图 \U0001f600", "é 图 \U0001f600"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb", "\ud800", None, 3, b"a"],
)
def test_names_that_are_no_folder(name):
    assert unsafe_name(name)


@pytest.mark.parametrize("name", ["sdxl", "a b", "..a", "a..", "é", "x" * 300, "a,b", "{uid}"])
def test_names_that_are_fine(name):
    assert unsafe_name(name) is None


@given(st.text(max_size=12))
def test_no_name_leaves_its_folder(name):
    if unsafe_name(name) is None:
        assert os.path.dirname(os.path.normpath(os.path.join("/root/x", name))) == "/root/x"
