"""A zip from anywhere, read so that it can do no harm, and one written in a single step.

Nothing is unpacked to places that the archive names: members are read into memory, and only after
the archive's own directory was checked as a whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from zerodefect.files import atomic_write
from zerodefect.types import printable

_MOST_MEMBERS = 100_000
_LARGEST = 64 * 2**30  # bytes of all members together
_RATIO = 100  # how much larger than packed; deflate ends at about 1000, which only bombs reach
_SMALL = 2**20  # bytes up to which the ratio says nothing
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_COPY_AGAIN = "Copy it again from where it was written"
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
_NOT_OURS = "ZeroDefect writes no such file: do not use it, and ask whoever gave it to you"


class ProductError(ValueError):
    """A product file that cannot be used; the message says file, reason and remedy."""

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}. {remedy}")
        self.path, self.reason, self.remedy = str(path), reason, remedy


class Archive:
    """The members of a zip, checked before the first one is read.

    Args:
        path: of the file, which is opened anew for each reading, and must then be the same one.

    Attributes:
        sizes: bytes of each member, by name.

    Raises:
        ProductError: no such file, no zip or one cut off, encrypted, with members that lead out of
            a folder, are links, occur twice, or unpack to far more than they take.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: tuple[int, ...] | None = None
        with self._opened() as archive:
            self.sizes = self._checked(archive.infolist())

    def __contains__(self, name: object) -> bool:
        return name in self.sizes

    def read(self, name: str, most: int = _LARGEST) -> bytes:
        """Bytes of a member of at most so many.

        Raises:
            ProductError: it is not there, larger, or damaged.
        """
        return self.read_all([name], most)[0]

    def read_all(self, names: Sequence[str], most: int = _LARGEST) -> list[bytes]:
        """``read`` for several, each of at most so many bytes."""
        for name in names:
            if name not in self.sizes:
                raise ProductError(self.path, f"{name} is missing in it", _COPY_AGAIN)
            if self.sizes[name] > most:
                size = f"{self.sizes[name]:,} bytes, at most {most:,} are read"
                raise ProductError(self.path, f"{name} in it takes {size}", _NOT_OURS)
        found = []
        with self._opened() as archive:
            for name in names:
                try:
                    found.append(archive.read(name))
                except _DAMAGE as error:
                    reason = printable(f"{name} in it is damaged ({error})")
                    raise ProductError(self.path, reason, _COPY_AGAIN) from None
        return found

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with contextlib.ExitStack() as stack:
            yield self._entered(stack)

    def _entered(self, stack: contextlib.ExitStack) -> zipfile.ZipFile:
        try:
            file = stack.enter_context(self.path.open("rb"))
            told = os.fstat(file.fileno())
            one = told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns
            self._file = self._file or one
            if one != self._file:
                reason = "it was replaced since it was loaded"
                raise ProductError(self.path, reason, "Load it again")
            return stack.enter_context(zipfile.ZipFile(file))
        except ProductError:
            raise
        except FileNotFoundError:
            raise ProductError(self.path, "no such file", "Check the path") from None
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error})"
            raise ProductError(self.path, reason, "Check the path and its permissions") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
            reason = "not a product file, or cut off"
            raise ProductError(
                self.path, reason, f"{_COPY_AGAIN}, or write one: zerodefect calibrate --output"
            ) from None

    def _checked(self, members: list[zipfile.ZipInfo]) -> dict[str, int]:
        if len(members) > _MOST_MEMBERS:
            reason = f"holds {len(members):,} members, at most {_MOST_MEMBERS:,} are read"
            raise ProductError(self.path, reason, _NOT_OURS)
        sizes: dict[str, int] = {}
        seen: set[str] = set()
        packed = total = 0
        for member in members:
            name = member.orig_filename
            if fault := _fault(member, seen):
                raise ProductError(self.path, f"{name!r} in it {fault}", _NOT_OURS)
            seen.add(name.casefold())
            packed, total = packed + member.compress_size, total + member.file_size
            if not member.is_dir():
                sizes[name] = member.file_size
        if total > _LARGEST or packed > self.path.stat().st_size:
            reason = f"would unpack to {total:,} bytes, at most {_LARGEST:,} are read"
            raise ProductError(self.path, reason, _NOT_OURS)
        return sizes


def _fault(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """What is wrong with a member, by the archive's directory; None where nothing is."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    packed, size = member.compress_size, member.file_size
    faults = {
        "is no plain name": not name or any(sign in name for sign in "\0\\:"),
        "leads out of the folder": name.startswith("/") or ".." in PurePosixPath(name).parts,
        "is a link, or no regular file": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": member.flag_bits & 1,
        "stands there twice": name.casefold() in seen,
        "is packed by a method that is not read": member.compress_type not in _PLAIN,
        f"would unpack from {packed:,} to {size:,} bytes, as a bomb does": (
            size > max(_SMALL, _RATIO * packed)
        ),
    }
    return next((fault for fault, found in faults.items() if found), None)


def write_archive(path: str | Path, members: Mapping[str, bytes]) -> None:
    """Write a zip; it appears under its name when it is whole, and a former one is replaced.

    Texts are packed; pictures and tensors, which are dense, are stored. The same members give the
    same bytes.

    Raises:
        StoreError: the operating system refused to write.
    """
    with (
        atomic_write(Path(path), shared=True) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, content in members.items():
            told = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            told.external_attr = (stat.S_IFREG | 0o644) << 16
            text = name.endswith((".json", ".md"))
            told.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            archive.writestr(told, content)
