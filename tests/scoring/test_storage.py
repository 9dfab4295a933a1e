"""Objects of a store as files, whatever the store fails to do; and nothing that tells a credential."""

from __future__ import annotations

import errno
import io
import random
from types import SimpleNamespace

import pytest
from aiohttp import ClientResponseError, ServerDisconnectedError
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from pyiqa_ma_agiqa.errors import InputError
from pyiqa_ma_agiqa.places import absolute, is_url, joined, parent, without_secrets
from pyiqa_ma_agiqa.scoring.inputs import storage
from pyiqa_ma_agiqa.scoring.inputs.expanding import expanded
from pyiqa_ma_agiqa.scoring.inputs.stamps import is_still, is_still_at, open_regular, stamp
from pyiqa_ma_agiqa.scoring.inputs.storage import RangeFile

from ..s3_server import SECRET

URL = "s3://images/folder/größe 1.bin"
CONTENT = random.Random(0).randbytes(100_000)


@pytest.fixture
def stored(s3):
    storage.write_object(URL, CONTENT)
    return URL


@pytest.fixture
def small_ranges(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_RANGE", 1000)
    monkeypatch.setattr(storage, "LARGEST_RANGE", 8000)


def test_an_object_reads_as_a_file_does(stored, small_ranges):
    rng = random.Random(1)
    with RangeFile(stored) as file, io.BytesIO(CONTENT) as expected:
        for _ in range(200):
            if rng.random() < 0.3:
                place = rng.choice([rng.randrange(101_000), file.tell() + rng.randrange(3000)])
                assert file.seek(place) == expected.seek(place)
            size = rng.choice([0, 1, 100, 5000])
            assert file.read(size) == expected.read(size)
            assert file.tell() == expected.tell()
        assert file.seek(-7, io.SEEK_END) == expected.seek(-7, io.SEEK_END)
        assert file.read() == expected.read() and file.read(1) == b""


def test_ranges_grow_in_sequence_and_stay_bounded(stored, small_ranges, monkeypatch):
    asked = []
    read_range = storage.read_range
    monkeypatch.setattr(
        storage, "read_range", lambda url, *span: asked.append(span) or read_range(url, *span)
    )
    with RangeFile(stored) as file:
        while file.read(100):
            pass
        sizes = [end - start for start, end in asked]
        assert sizes[:2] == [1000, 2000] and sizes[:-1] == sorted(sizes[:-1]) and sizes[-2] == 8000
        assert [start for start, _ in asked[1:]] == [end for _, end in asked[:-1]]
        file.seek(50)
        file.read(1)
        assert asked[-1] == (50, 1050)


def test_a_stamp_tells_another_content(stored):
    with open_regular(stored) as file:
        before = stamp(file)
        assert is_still(file, before) and is_still_at(stored, before)
        storage.write_object(stored, CONTENT[::-1])
        assert not is_still(file, before) and not is_still_at(stored, before)
    assert not is_still_at("s3://images/none", before)


def test_names_of_a_store(stored):
    storage.write_object("s3://images/folder/a.png", b"")
    assert storage.below("s3://images/folder") == ["s3://images/folder/a.png", stored]
    assert storage.is_folder("s3://images/folder/") and not storage.is_folder(stored)
    pattern = "s3://images/fo*/{a,g*}.{png,bin}"
    with pytest.raises(InputError, match=r"s3://images/fo\*/a.bin|matches nothing"):
        list(expanded(pattern))
    assert list(expanded("s3://images/fo*/{a.png,g*}")) == ["s3://images/folder/a.png", stored]


def test_braces_and_globs_of_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a-08.tar", "a-09.tar", "a-{1,2}.tar", "b.tar", "{.tar"):
        (tmp_path / name).touch()
    assert list(expanded("a-{08..10}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert list(expanded("a-{1,2}.tar")) == ["a-{1,2}.tar"]
    assert list(expanded("{.tar")) == ["{.tar"] and next(expanded("{b,a-0*}.tar")) == "b.tar"
    assert list(expanded("http://host/a?b=[1]")) == ["http://host/a?b=[1]"]


def test_a_store_that_fails_for_a_while(stored, s3):
    s3.fail(unavailable=2, reset=1)
    assert storage.read_range(stored, 10, 20) == CONTENT[10:20]


class Fake:
    """A store whose calls do as told, one after another, the last one again and again."""

    async_impl = False

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        monkeypatch.setattr(storage, "_store", lambda url: (self, url))

    def info(self, path, **named):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    cat_file = info


def test_a_store_that_fails_for_good(monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    monkeypatch.setattr(storage, "LONGEST_PAUSE", 0.05)
    Fake(monkeypatch, ConnectionResetError(errno.ECONNRESET, "gone"))
    with pytest.raises(OSError, match="gone"):
        storage.facts(URL)


def test_nobody_is_patient_when_a_run_is_ended(monkeypatch):
    Fake(monkeypatch, ConnectionResetError(errno.ECONNRESET, "gone"), {"size": 1})  # for who asks again
    with storage.hurried(), pytest.raises(OSError, match="gone"):
        storage.facts(URL)


def test_what_no_patience_mends(s3):
    s3.fail(denied=1)
    with pytest.raises(PermissionError):
        storage.write_object(URL, b"")
    s3.fail()
    with pytest.raises(FileNotFoundError):
        storage.facts("s3://images/none")
    with pytest.raises(FileNotFoundError):
        storage.facts("s3://no-such-bucket/none")
    with pytest.raises(IsADirectoryError):
        storage.facts(URL.rpartition("/")[0])
    with pytest.raises(InputError, match=r"nothing://x: cannot be opened .*check the URL, and the cred"):
        storage.facts("nothing://x")


def answer(status):
    return ClientResponseError(SimpleNamespace(real_url=URL), (), status=status)


def caused(error):
    missing = FileNotFoundError("http://host/x")
    missing.__cause__ = error
    return missing


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (caused(answer(403)), PermissionError),
        (answer(410), PermissionError),
        (NoCredentialsError(), PermissionError),
        (caused(answer(404)), FileNotFoundError),
        (answer(503), OSError),
        (answer(429), OSError),
        (ServerDisconnectedError(), OSError),
    ],
)
def test_what_is_refused_is_told_from_a_store_that_is_away(error, kind, monkeypatch):
    """Ten shards in a row of the second kind end a run."""
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    Fake(monkeypatch, *[error] * 9)
    with pytest.raises(OSError) as raised:
        storage.facts(URL)
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EBUSY, "slow down"), True),
        (EndpointConnectionError(endpoint_url="http://host"), True),
        (ServerDisconnectedError(), True),
        (answer(503), True),
        (answer(429), True),
        (caused(ServerDisconnectedError()), True),
        (caused(answer(403)), False),
        (caused(answer(404)), False),
        (answer(403), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (NoCredentialsError(), False),
        (OSError(errno.ENOSPC, "full"), False),
        (KeyError("a fault of ours"), False),
    ],
)
def test_what_is_tried_again(error, again):
    assert storage._may_pass(error) is again


def test_a_server_without_ranges_and_one_that_breaks_off(monkeypatch):
    Fake(monkeypatch, b"12", b"123")
    assert storage.read_range("http://host/x", 0, 3) == b"123"
    Fake(monkeypatch, b"123456")
    with pytest.raises(OSError, match="the server hands out no ranges"):
        storage.read_range("http://host/x", 0, 3)
    Fake(monkeypatch, {"type": "file", "size": None})
    with pytest.raises(OSError, match="does not say how large it is"):
        storage.facts("http://host/x")


def test_places():
    assert is_url("s3://b/k") and is_url("abfs://c@a.dfs/k") and not is_url("C:/x") and not is_url("a/b")
    assert absolute("s3://b/../k") == "s3://b/../k" and absolute("a").startswith("/")
    assert joined("s3://b/k/", "x") == "s3://b/k/x" and joined("s3://b", "gs://c") == "gs://c"
    assert joined("a", "x") == "a/x" and joined("a", "/x") == "/x" and joined("a", "s3://c") == "s3://c"
    assert parent("s3://b/k/x") == "s3://b/k" and parent("a/x") == "a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/a?X-Sig=s (x)", "https://host/a (x)"),
        ("https://token@host/a@b", "https://host/a@b"),
        ("'http://host/a?sig=s', failed", "'http://host/a', failed"),
        ("s3://key:secret@bucket/a?b.png", "s3://bucket/a?b.png"),
        ("s3://bucket/a?versionId=1", "s3://bucket/a"),
        ("abfs://box@account.dfs/a", "abfs://box@account.dfs/a"),
        ("a path?x=y", "a path?x=y"),
        ("the key hf_abcdefgh is bad", "the key *** is bad"),
    ],
)
def test_text_without_secrets(monkeypatch, text, shown):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "a path?x=y")
    assert without_secrets(text) == shown


def test_an_error_tells_no_credential(s3, monkeypatch):
    url = "https://host/x?sig=abc"
    Fake(monkeypatch, PermissionError(errno.EACCES, f"{SECRET} is not welcome at {url}"))
    with pytest.raises(PermissionError) as raised:
        storage.facts(url)
    assert str(raised.value) == "[Errno 13] *** is not welcome at https://host/x"
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
