"""The folder for what can be worked out again: whole files or none, and none that others can write."""

import os

import pytest

from ipsecctl.store import cache as caching
from ipsecctl.store.cache import Cache, cache_dir

KEY, OTHER = "0123456789abcdef" * 4, "f" * 64


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "ipsecctl"


def test_what_is_written_is_read_and_is_its_owners_alone(folder):
    cache = Cache(folder)
    assert cache.read(KEY) is None
    cache.write(KEY, b"one")
    cache.write(KEY, b"two")
    assert (cache.read(KEY), cache.read(OTHER)) == (b"two", None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [(path.name, path.stat().st_mode & 0o777) for path in folder.iterdir()] == [(KEY, 0o600)]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o755])
def test_a_folder_that_others_can_enter_is_not_used(folder, mode):
    cache = Cache(folder)
    cache.write(KEY, b"one")
    folder.chmod(mode)
    cache.write(OTHER, b"two")
    assert (cache.read(KEY), cache.read(OTHER)) == (None, None)
    folder.chmod(0o700)
    assert (cache.read(KEY), cache.read(OTHER)) == (b"one", None)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o644])
def test_a_file_that_others_can_read_or_write_is_not_there(folder, mode):
    cache = Cache(folder)
    cache.write(KEY, b"one")
    (folder / KEY).chmod(mode)
    assert cache.read(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_not_there(folder):
    cache = Cache(folder)
    cache.write(KEY, b"one")
    os.chown(folder / KEY, 4711, 4711)
    assert cache.read(KEY) is None
    os.chown(folder / KEY, 0, 0)
    os.chown(folder, 4711, 4711)
    assert cache.read(KEY) is None


def test_links_and_pipes_are_not_followed(folder, tmp_path):
    cache = Cache(folder)
    cache.write(KEY, b"one")
    (folder / KEY).rename(tmp_path / "moved")
    (folder / KEY).symlink_to(tmp_path / "moved")
    os.mkfifo(folder / OTHER, 0o600)
    assert (cache.read(KEY), cache.read(OTHER)) == (None, None)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    cache.write(OTHER, b"two")
    assert cache.read(OTHER) is None


@pytest.mark.parametrize("key", ["", "../x", "a" * 63, f"{'a' * 63}/", "A" * 64])
def test_a_key_is_no_path(folder, key):
    cache = Cache(folder)
    cache.write(key, b"one")
    assert cache.read(key) is None
    assert not folder.exists() or not [*folder.iterdir()]


def test_what_cannot_be_written_is_left(folder):
    folder.parent.write_text("a file in its place")
    Cache(folder).write(KEY, b"one")
    assert Cache(folder).read(KEY) is None
    Cache(None).write(KEY, b"one")
    assert Cache(None).read(KEY) is None


def test_the_oldest_files_go(folder, monkeypatch):
    monkeypatch.setattr(caching, "_MOST_FILES", 3)
    cache = Cache(folder)
    keys = [f"{n:064x}" for n in range(5)]
    for n, key in enumerate(keys):
        cache.write(key, b"x")
        os.utime(folder / key, (n, n))
    assert sorted(path.name for path in folder.iterdir()) == keys[2:]


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/ipsecctl"),
        ({"XDG_CACHE_HOME": "c", "HOME": "/h"}, "/h/.cache/ipsecctl"),
        ({"HOME": "/h"}, "/h/.cache/ipsecctl"),
        ({"HOME": "h"}, None),
        ({}, None),
    ],
)
def test_its_place_is_the_xdg_folder(environment, place):
    found = cache_dir(environment)
    assert (str(found) if found else None) == place
