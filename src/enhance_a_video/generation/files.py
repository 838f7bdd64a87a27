"""Files written whole or not at all, on any file system, and outputs checked before the work that goes into them.

A file system that is no local disk (NFS, SMB, exFAT, FUSE) may refuse permissions, syncing, renaming or locking.
Whatever a finished file does not need is tried, and left out where it is refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from .. import limits
from ..errors import EnhanceAVideoError, OutputExistsError, SettingsError, VideoFileError

T = TypeVar("T")
_LOSES_DATA = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # what syncing may report of data that was not written
_TRIED = 1 << 16  # bytes written by a check: a full disk still takes empty files


def named(text: str | Path, what: str = "") -> Path:
    """A path as a person gives it: ~ is the home folder. what: where it was given, for the message.

    SettingsError: it is empty, or only spaces; it begins with the home of a user that there is not.
    """
    where = f"{what}: " if what else ""
    if not str(text).strip():
        raise SettingsError(
            f"{where}an empty path was given: give the name of a file or folder (. is the current one)."
        )
    path = Path(os.path.expanduser(text))
    home = path.parts[0] if len(path.parts) > 1 else ""
    if str(text).startswith("~") and home.startswith("~") and not Path(home).exists():
        raise SettingsError(f"{where}there is no user {home[1:]}. For a folder named {home} write ./{path}.")
    return path


def text_of(path: Path, what: str, error: type[EnhanceAVideoError]) -> str:
    """A file's text, UTF-8. Raises `error` where it cannot be read; what: the beginning of its sentence."""
    try:
        return limits.ordinary(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as refused:
        reason = getattr(refused, "strerror", None) or "it is not UTF-8 text"
        raise error(f"{what} {path} cannot be read: {reason}.") from refused


def reserved(name: str) -> bool:
    """Whether Windows keeps this name for a device, whatever its ending: no file or folder can have it there."""
    return re.fullmatch(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])", name.partition(".")[0].strip().lower()) is not None


def refuse_existing(paths: Iterable[str | Path], *, force: bool = False) -> None:
    """Checks outputs before hours of work go into them: nothing there yet (or `force`), and each can be written. Does
    for each what writing it does: makes the folder, writes a draft, uses the name.

    Raises:
        OutputExistsError: naming every file that is there.
        VideoFileError: a folder that cannot be made or written, a name that the file system does not take, no space.
    """
    targets = [_target(path) for path in paths]
    there = [str(path) for path in targets if path.exists()]
    if there and not force:
        raise OutputExistsError(
            f"Already there: {', '.join(there)}. Overwrite with --force (force=True), or choose another name."
        )
    for path in targets:
        _rehearse(path)


@contextmanager
def atomic(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` at the end, or vanishes if anything goes wrong before.
    Through a symbolic link the file that it leads to is written.

    Raises:
        OutputExistsError: `path` exists and `force` is False.
        VideoFileError: it cannot be written. A finished file that only its name was refused is kept: the message has
            its path.
    """
    target = _target(path)
    if target.exists() and not force:
        raise OutputExistsError(f"Already there: {path}. Overwrite with --force (force=True), or choose another name.")
    draft = _draft(target)
    try:
        with explained(path):
            yield draft
            sync(draft)
    except BaseException:
        _discard(draft)
        raise
    _publish(draft, target)


def write_text(path: str | Path, text: str, *, force: bool = False) -> Path:
    """Writes a UTF-8 text file. Errors as in `atomic`."""
    with atomic(path, force=force) as draft:  # half of a surrogate pair, such as a broken prompt has, is no UTF-8
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))
    return Path(path)


def write_bytes(path: str | Path, data: bytes, *, force: bool = False) -> Path:
    """Writes a file of these bytes. Errors as in `atomic`."""
    with atomic(path, force=force) as draft:
        draft.write_bytes(data)
    return Path(path)


def write_into(folder: Path, write: Callable[[Path], T]) -> T:
    """Calls `write(folder)` with finished work. Where the folder refuses it, it is written into a temporary one.

    Raises:
        VideoFileError, OutputExistsError: the folder refused; with the temporary folder in its message where that took
            everything.
    """
    try:
        return write(folder)
    except (VideoFileError, OutputExistsError) as refused:
        try:
            spare = Path(tempfile.mkdtemp(prefix="enhance-a-video-"))
            write(spare)
        except OSError:
            raise refused from None
        text = f"{refused} Nothing is lost: what was to go to {folder} is in {spare}."
        raise type(refused)(text) from refused


def sync(path: Path) -> None:
    """To the disk: what survives a kill anyway then survives a power cut as well. Where the file system does not sync,
    nothing; OSError where it reports data that was not written."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _LOSES_DATA and not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def only_one(lock: Path, busy: EnhanceAVideoError) -> Iterator[None]:
    """Holds a lock file in a folder that can be written; let go however this process ends.

    Raises:
        busy: another process holds it. A file system that cannot lock gets a warning, and no lock.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise busy from None
    except (OSError, NotImplementedError) as error:
        warnings.warn(
            f"{lock.parent} cannot be locked ({reason(error)}): make sure that no second run writes to it.",
            stacklevel=3,
        )
    try:
        yield
    finally:
        with suppress(OSError):
            held.release()


@contextmanager
def explained(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Turns the operating system's complaints about `path` into one VideoFileError with the way out."""
    try:
        yield
    except EnhanceAVideoError:
        raise
    except OSError as error:
        raise VideoFileError(f"Cannot {doing} {path}: {advice(error)}") from error


def advice(error: OSError) -> str:
    """What is wrong, and what to do about it."""
    known = _ADVICE.get(error.errno or 0)
    return known or f"{reason(error).rstrip('.')}. Choose another folder."


def reason(error: BaseException) -> str:
    """The operating system's words for an error, without number and path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


# --------------------------------------------------------------------------------------------------- the steps of it


def _target(path: str | Path) -> Path:
    """The file that writing to `path` makes, its folder made: behind a symbolic link the one that it leads to."""
    path = Path(path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise SettingsError(f"{str(path)!r} cannot be written in this system's encoding of file names.") from None
    if "\0" in str(path):
        raise SettingsError(f"{str(path)!r} cannot be the name of a file.")
    with explained(path):
        if path.is_symlink():
            path = Path(os.path.realpath(path))
            if path.is_symlink():
                raise OSError(errno.ELOOP, "")
        if path.is_dir():
            raise VideoFileError(f"{path} is a folder, not a file name. Give the name of the file to write.")
        if path.exists() and not path.is_file():
            raise VideoFileError(f"{path} is a device or a pipe. Give the name of the file to write.")
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _rehearse(path: Path) -> None:
    """Writes a draft as `atomic` does, and makes a file with a name of the same characters. Nothing is left, and `path`
    itself is not touched: another process may be about to make it."""
    draft = _draft(path)
    try:
        with explained(path):
            draft.write_bytes(b"\0" * _TRIED)
            sync(draft)
    finally:
        _discard(draft)
    with explained(path):
        if path.exists():
            if not os.access(path, os.W_OK):
                raise OSError(errno.EACCES, "")
            return
        likeness = path.with_name(path.name[1:] + path.name[0])
        with suppress(FileExistsError):
            os.close(os.open(likeness, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            _discard(likeness)


def _draft(path: Path) -> Path:
    """A new empty file beside `path` that is named after it, but never so long that only its name is refused."""
    stem = path.stem.encode("utf-8", "surrogateescape")[-100:].decode("utf-8", "ignore")
    with explained(path):
        handle, name = tempfile.mkstemp(prefix=f".{stem}-", suffix=path.suffix[-20:], dir=path.parent)
        os.close(handle)
    return Path(name)


def _publish(draft: Path, path: Path) -> None:
    """Gives the finished draft its name, or where files cannot be renamed that name its content."""
    with suppress(OSError):
        draft.chmod(0o666 & ~_umask())  # mkstemp makes private files; an output is an ordinary one
    try:
        os.replace(draft, path)
    except OSError as refused:
        if not draft.exists():
            raise VideoFileError(f"Cannot write {path}: {advice(refused)}") from refused
        before = path.exists()
        try:
            if refused.errno in _LOSES_DATA:  # no rename that is not supported: a copy would fare no better
                raise refused
            shutil.copyfile(draft, path)
        except OSError as error:
            if not before:
                _discard(path)
            raise VideoFileError(f"Cannot write {path}: {advice(error)} The finished file is {draft}.") from error
        _discard(draft)
    with suppress(OSError):
        sync(path.parent)


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_GONE = "the disk or network drive does not answer. Is it still connected?"
_ADVICE = {
    errno.ENOSPC: "no space left on the device. Free some, or write to another disk.",
    errno.EDQUOT: "the disk quota is used up. Free some space, or write to another disk.",
    errno.EFBIG: "it is too large for this file system. Write to another disk.",
    errno.EACCES: "permission denied. Choose a folder that you may write to.",
    errno.EPERM: "permission denied. Choose a folder that you may write to.",
    errno.EROFS: "the file system is read-only. Choose another folder.",
    errno.ENOTDIR: "a part of its path is a file, not a folder. Choose another folder.",
    errno.EEXIST: "its folder's name is taken by a file. Choose another folder.",
    errno.ENOENT: "its folder is gone. Make it again, or choose another one.",
    errno.ENAMETOOLONG: "its name is too long for the file system. Choose a shorter one.",
    errno.EINVAL: "the file system does not take this name. Choose one of letters, digits and dashes.",
    errno.ELOOP: "its symbolic links lead in a circle. Choose another name.",
    errno.EBUSY: "another program has it open. Close that, or choose another name.",
    errno.EIO: _GONE,
    errno.ETIMEDOUT: _GONE,
    **{getattr(errno, name): _GONE for name in ("ESTALE", "EHOSTDOWN", "EREMOTEIO") if hasattr(errno, name)},
}
