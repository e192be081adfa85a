"""Files that are replaced whole or not at all, also where the process is killed while it writes."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from onnx_spatialdrop.errors import ModelFileError

__all__ = ["LARGEST", "Pending", "appearing", "read", "replacing"]

#: Protobuf cannot read more.
LARGEST: Final = 2**31 - 1
_OPEN_FILES: Final = "/proc/self/fd"
#: What folders answer that cannot hold a file without a name: older kernels, network file systems.
_NO_UNNAMED: Final = (errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES)
#: What folders answer that cannot give a file a second name: FAT, some network file systems.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)


class Pending:
    """A file under construction in the folder of ``final``; nobody sees it before ``place``.

    Where the system can, it has no name until then, so that not even a process that is killed leaves it behind.
    A ``final`` that is a symbolic link is replaced; what it points to stays as it is.

    Attributes:
        final: where the file belongs.
        stream: what to write to.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self._name: Path | None = None
        self.stream: BinaryIO
        _refuse_special(final)
        unnamed = _unnamed(final.parent)
        if unnamed is None:
            self._name = self._free_name()
            self.stream = open(self._name, "x+b")  # noqa: SIM115 - closed by place or discard
        else:
            self.stream = os.fdopen(unnamed, "w+b")

    def sync(self) -> None:
        """Bring all that was written to the disk."""
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def place(self) -> None:
        """Give the file its place; the mode of a file that it replaces is kept. Call ``sync`` before."""
        self.take_mode(self.final)
        if self._name is None:
            name = self._free_name()
            _link(self.stream.fileno(), name)
            self._name = name
        self.stream.close()
        os.replace(self._name, self.final)
        self._name = None
        _sync_folder(self.final.parent)

    def take_mode(self, file: Path) -> None:
        """Let the same people read the file who may read ``file``, where that is there."""
        if file.exists():
            os.fchmod(self.stream.fileno(), file.stat().st_mode & 0o7777)

    def place_beside(self) -> None:
        """Give the file its place where nothing has that name yet. Call ``sync`` before.

        Raises:
            FileExistsError: something has it; it stays as it is.
        """
        if self._name is None:
            _link(self.stream.fileno(), self.final)
        else:
            try:
                os.link(self._name, self.final)
            except OSError as error:
                if error.errno not in _NO_LINKS or os.path.lexists(self.final):
                    raise
                os.replace(self._name, self.final)  # a file system without links, and nobody else is that quick
                self._name = None
        self.discard()
        _sync_folder(self.final.parent)

    def discard(self) -> None:
        """Forget the file, unless it has its place already."""
        with suppress(OSError):  # a full disk
            self.stream.close()
        if self._name is not None:
            with suppress(OSError):
                self._name.unlink()
            self._name = None

    def _free_name(self) -> Path:
        # Not after the file: its name may be as long as names can be.
        return self.final.with_name(f".{secrets.token_hex(8)}.tmp")


@contextmanager
def replacing(file: Path) -> Iterator[Pending]:
    """Write a file that takes the place of ``file`` when all went well, and vanishes otherwise.

    Raises:
        ModelFileError: the folder or the file cannot be written.
    """
    try:
        pending = Pending(file)
        try:
            yield pending
            pending.sync()
            pending.place()
        finally:
            pending.discard()
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{file}: cannot be written: {error.strerror or error}") from error


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Fill a folder that takes the name ``folder``, which nothing has yet, when all went well, and vanishes otherwise.

    Raises:
        ModelFileError: it cannot be made, or something got that name meanwhile.
    """
    building = folder.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        building.mkdir(parents=True)
        try:
            yield building
            os.rename(building, folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _unnamed(folder: Path) -> int | None:
    """Open a file without a name in ``folder``; None where there is no such thing, or no way to name it later."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(_OPEN_FILES):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise


def _sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link(descriptor: int, name: Path) -> None:
    folder = os.open(_OPEN_FILES, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Without src_dir_fd Python calls link(2), which does not follow what stands for the open file.
        os.link(str(descriptor), name, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _refuse_special(file: Path) -> None:
    """Refuse to put a file where a folder, a pipe or a device is."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, and only files can be replaced whole")


def read(file: Path) -> bytes:
    """Return the content of a regular file that protobuf can hold; nothing else is opened, since it may never end.

    Raises:
        ModelFileError: it is missing, unreadable, no regular file, or 2 GiB or larger.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ModelFileError(f"{file}: cannot be read: it is {kind}")
        if status.st_size > LARGEST:
            raise ModelFileError(
                f"{file}: is not a readable ONNX model: {status.st_size} bytes are more than protobuf holds (2 GiB)"
            )
        return file.read_bytes()
    except ModelFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise ModelFileError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
