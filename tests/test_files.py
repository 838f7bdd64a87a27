"""Outputs on file systems that refuse things: what a finished file needs, and what it can do without."""

import errno
import os
import shutil
import sqlite3
import tempfile
import warnings
from pathlib import Path

import pytest

from enhance_a_video.errors import EnhanceAVideoError, OutputExistsError, SettingsError, VideoFileError
from enhance_a_video.generation import files, video
from enhance_a_video.lab import database


def refusing(number: int):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


def write(path, data: bytes = b"whole", **options) -> None:
    with files.atomic(path, **options) as draft:
        draft.write_bytes(data)


# ------------------------------------------------------------------------------------------- what may be refused


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("name", ["chmod", "fsync", "replace", "unlink"])
def test_a_finished_file_survives_what_a_network_drive_refuses(tmp_path, monkeypatch, name, number):
    monkeypatch.setattr(os, name, refusing(number))
    files.refuse_existing([tmp_path / "x.mp4"])
    write(tmp_path / "x.mp4")
    write(tmp_path / "x.mp4", b"again", force=True)
    assert (tmp_path / "x.mp4").read_bytes() == b"again"


def test_data_that_was_not_written_is_no_finished_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))  # where NFS and quotas report it
    with pytest.raises(VideoFileError, match="no space left"):
        write(tmp_path / "x.mp4")
    with pytest.raises(VideoFileError, match="no space left"):
        files.refuse_existing([tmp_path / "x.mp4"])
    assert not os.listdir(tmp_path)


def test_a_file_that_only_its_name_was_refused_is_kept_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", refusing(errno.EBUSY))
    monkeypatch.setattr(shutil, "copyfile", refusing(errno.EBUSY))  # a player holds the old file open on Windows
    (tmp_path / "x.mp4").write_bytes(b"old")
    with pytest.raises(VideoFileError, match="another program has it open") as error:
        write(tmp_path / "x.mp4", force=True)
    kept = Path(str(error.value).rsplit("The finished file is ", 1)[1].rstrip("."))
    assert kept.read_bytes() == b"whole" and (tmp_path / "x.mp4").read_bytes() == b"old"


def test_interruption_leaves_no_partial_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.atomic(tmp_path / "x.txt") as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_half_a_character_is_written_all_the_same(tmp_path):
    assert files.write_text(tmp_path / "x.html", "a \ud83d cat").read_text() == "a \\ud83d cat"


# --------------------------------------------------------------------- the check before the work is what the end does


def test_existing_outputs_are_found_in_advance(tmp_path):
    (tmp_path / "b.mp4").touch()
    with pytest.raises(OutputExistsError, match=r"b\.mp4"):
        files.refuse_existing([tmp_path / "a.mp4", tmp_path / "b.mp4"])
    files.refuse_existing([tmp_path / "b.mp4"], force=True)
    assert os.listdir(tmp_path) == ["b.mp4"]


def test_what_cannot_be_written_is_found_in_advance(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, why in [
        ("file/deeper/x.mp4", "file"), ("folder.mp4", "folder"), ("circle.mp4", "circle"), ("pipe.mp4", "pipe"),
        ("x" * 300 + ".mp4", "too long"), ("x" * 300 + "/x.mp4", "too long"),
    ]:  # fmt: skip
        for check in (files.refuse_existing, lambda paths, force: write(paths[0], force=force)):
            with pytest.raises(VideoFileError, match=why):
                check([tmp_path / name], force=True)
    with pytest.raises(SettingsError, match="name of a file"):
        files.refuse_existing([tmp_path / "a\0b.mp4"])


def test_names_that_the_file_system_does_not_take_are_found_in_advance(tmp_path, monkeypatch):
    opened = os.open

    def exfat(path, *arguments, **options):
        if ":" in os.path.basename(path):
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", exfat)
    with pytest.raises(VideoFileError, match="does not take this name"):
        files.refuse_existing([tmp_path / "12:30.mp4"])


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("x" * 251 + ".mp4", "é" * 125 + ".mp4"):
        files.refuse_existing([tmp_path / name])
        write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"whole"


def test_a_full_disk_is_found_in_advance(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", refusing(errno.ENOSPC))  # it still takes empty files
    with pytest.raises(VideoFileError, match="no space left"):
        files.refuse_existing([tmp_path / "x.mp4"])
    assert not os.listdir(tmp_path)


def test_the_check_does_not_touch_what_another_process_makes_meanwhile(tmp_path, monkeypatch):
    path, opened = tmp_path / "study.sqlite", os.open

    def race(name, flags, *arguments, **options):
        if flags & os.O_EXCL and not path.exists():
            path.write_bytes(b"of another process")
        return opened(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", race)
    files.refuse_existing([path])
    assert path.read_bytes() == b"of another process" and os.listdir(tmp_path) == ["study.sqlite"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not hold the superuser")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(VideoFileError, match="permission denied"):
            files.refuse_existing([tmp_path / "x.mp4"])
    finally:
        tmp_path.chmod(0o700)


def test_a_symbolic_link_leads_to_the_file(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "x.mp4").symlink_to(tmp_path / "big" / "x.mp4")  # not there yet
    write(tmp_path / "x.mp4")
    assert (tmp_path / "x.mp4").is_symlink() and (tmp_path / "big" / "x.mp4").read_bytes() == b"whole"
    with pytest.raises(OutputExistsError):
        write(tmp_path / "x.mp4")


# ------------------------------------------------------------------------------------------------ paths, locks, rescue


@pytest.mark.parametrize("text", ["", "  ", "\t"])
def test_an_empty_path_is_refused(text):
    with pytest.raises(SettingsError, match="empty path"):
        files.named(text)


def test_home_in_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert files.named("~/x.mp4") == tmp_path / "x.mp4"
    assert files.named("~nobody-of-this-name.mp4") == Path("~nobody-of-this-name.mp4")


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "No locks available")])
def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch, error):
    def acquire(self, *_, **__):
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.warns(UserWarning, match="cannot be locked"), files.only_one(tmp_path / ".lock", ValueError()):
        write(tmp_path / "x")


def test_a_lock_file_that_was_left_behind_holds_nobody(tmp_path):
    (tmp_path / ".lock").touch()
    busy = SettingsError("busy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with (
            files.only_one(tmp_path / ".lock", busy),
            pytest.raises(SettingsError, match="busy"),
            files.only_one(tmp_path / ".lock", busy),
        ):
            pass


def test_finished_work_goes_elsewhere_where_its_folder_refuses_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x.mp4").touch()  # since the check before the work
    with pytest.raises(OutputExistsError, match="Nothing is lost") as error:
        files.write_into(tmp_path / "taken", lambda folder: write(folder / "x.mp4"))
    (kept,) = tmp_path.glob("enhance-a-video-*/x.mp4")
    assert kept.read_bytes() == b"whole"
    assert str(kept.parent) in str(error.value)


# ---------------------------------------------------------------------------------------------------------- databases


def filled(path: Path, mode: str) -> Path:
    with database.explained(path):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (1)")
    db.close()
    return path


def test_a_database_that_cannot_be_read_in_place_is_read_from_a_copy(tmp_path, monkeypatch):
    path, connect = filled(tmp_path / "votes.sqlite", "WAL"), sqlite3.connect
    writer = connect(path, isolation_level=None)
    writer.execute("INSERT INTO t VALUES (2)")  # only in the log beside it so far

    class ReadOnlyFolder(sqlite3.Connection):
        def execute(self, *_):
            raise sqlite3.OperationalError("unable to open database file")

    def where(name, *_, **options):
        return connect(name, **options, factory=ReadOnlyFolder if name == path else sqlite3.Connection)

    monkeypatch.setattr(sqlite3, "connect", where)
    with database.reading(path) as db:
        assert db.execute("SELECT x FROM t").fetchall() == [(1,), (2,)]
    writer.close()


def test_sqlite_errors_are_one_sentence_with_the_way_out(tmp_path):
    path = filled(tmp_path / "study.sqlite", "DELETE")
    full = sqlite3.connect(path, isolation_level=None)
    full.execute("PRAGMA max_page_count = 2")
    with pytest.raises(EnhanceAVideoError, match="no space left on its disk") as error, database.explained(path):
        full.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 9)
    assert str(path) in str(error.value)
    full.close()
    read_only = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(EnhanceAVideoError, match="Copy its folder"), database.explained(path):
        read_only.execute("INSERT INTO t VALUES (1)")
    read_only.close()
    one, two = (sqlite3.connect(path, timeout=0, isolation_level=None) for _ in range(2))
    one.execute("BEGIN IMMEDIATE")
    with pytest.raises(EnhanceAVideoError, match="another program is using it"), database.explained(path):
        two.execute("BEGIN IMMEDIATE")
    one.close(), two.close()
    path.write_bytes(b"x" * 4096)
    with (
        pytest.raises(EnhanceAVideoError, match="Move it away"),
        database.reading(path) as db,
        database.explained(path),
    ):
        db.execute("SELECT x FROM t")
    with pytest.raises(EnhanceAVideoError, match="network drive"), database.explained(path):
        raise OSError(errno.ESTALE, "Stale file handle")


def test_a_folder_with_a_tilde_in_its_name_is_reached(tmp_path, monkeypatch):
    from enhance_a_video.cli.options import path_of

    monkeypatch.chdir(tmp_path)
    assert path_of(path_of("./~sub/x.mp4")) == Path("./~sub/x.mp4")
    assert video.check_video_target(path_of("./~sub/x.mp4")) == Path("./~sub/x.mp4")
    assert video.check_video_target("~/x.mp4") == Path.home() / "x.mp4"
