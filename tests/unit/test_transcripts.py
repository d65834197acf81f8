import pytest

from wavernn.errors import DataError
from wavernn.train.transcripts import find_transcripts


def found(folder, *names):
    return find_transcripts({name: folder / f"{name}.flac" for name in names})


def test_texts_are_found_beside_the_recordings(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffHello there.\n", encoding="utf-8")
    (tmp_path / "metadata.csv").write_text(
        "b|In 1810|In eighteen ten|more|fields\nc|Café||x\nd||\ne\na|not this\n", encoding="utf-8"
    )
    assert found(tmp_path, *"abcdef") == {"a": "Hello there.", "b": "In eighteen ten", "c": "Café"}


def test_the_table_may_lie_a_folder_above(tmp_path):
    (tmp_path / "metadata.csv").write_text("b|Words\n")
    assert found(tmp_path, "wavs/b") == {"wavs/b": "Words"}
    assert found(tmp_path, "wavs/deeper/b") == {}


def test_no_texts_are_no_error(tmp_path, caplog):
    assert found(tmp_path, "a") == {}
    assert caplog.text == ""
    (tmp_path / "metadata.csv").write_text("name,text\na,Hello\n")
    assert found(tmp_path, "a") == {}
    assert "holds no transcripts; expected lines as NAME|TEXT" in caplog.text


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv"])
def test_what_is_not_text_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"a|\xff\xfe\xff")
    with pytest.raises(DataError, match=rf"{name} isn't text in UTF-8; convert it"):
        found(tmp_path, "a")
