import os

import pytest

from wavernn.files import write_atomic


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    assert path.read_bytes() == b"old"
    write_atomic(path, b"")
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_is_not_too_long(tmp_path):
    path = tmp_path / ("x" * 255)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")

    def fail(*args):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_on_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, real=real: calls.append(name) or real(*args)
        )
    write_atomic(tmp_path / "a.bin", b"new")
    assert calls == ["fsync", "replace"]


def test_two_writers_dont_share_a_draft(tmp_path, monkeypatch):
    drafts, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: drafts.append(a) or real(a, b))
    for _ in range(2):
        write_atomic(tmp_path / "a.bin", b"new")
    assert len(set(drafts)) == 2
    assert all(draft.parent == tmp_path for draft in drafts)


@pytest.mark.parametrize("place", ["gone/a.bin", "file/a.bin", "folder", "x" * 256])
def test_a_place_that_cant_be_written_to_is_an_os_error(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError):
        write_atomic(tmp_path / place, b"new")
    assert sorted(tmp_path.rglob("*")) == before
