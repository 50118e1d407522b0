"""A zip as its members, by name; nothing is extracted, and a name, a size or a kind that no torch file has is refused."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

from tensign.errors import UnsupportedModel

MAX_MEMBERS = 100_000


class Members:
    """The members of a zip, each stored as it is, as torch writes them: what they claim is never more than the zip has."""

    def __init__(self, source: Path | bytes) -> None:
        """Raises UnsupportedModel for a zip that is broken or has members that torch does not write."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._zip = _opened(source)
        infos = self._zip.infolist()
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            _check(info)
            if info.filename in self._infos:
                raise UnsupportedModel(f"a zip with two members of the name {info.filename[:100]!a}")
            self._infos[info.filename] = info
        total = sum(info.file_size for info in infos)
        if total > size:
            raise UnsupportedModel(f"a zip whose members claim {total} bytes, more than the file has")

    @property
    def names(self) -> list[str]:
        """Of all members, as the zip's directory lists them."""
        return list(self._infos)

    def size(self, name: str) -> int | None:
        """Bytes of a member; None where there is none of that name."""
        info = self._infos.get(name)
        return None if info is None else info.file_size

    def read(self, name: str, most: int) -> bytes:
        """A member's content. Raises UnsupportedModel where it is not there, broken, or of more bytes than `most`."""
        info = self._infos.get(name)
        if info is None:
            raise UnsupportedModel(f"a zip without the member {name[:100]!a}")
        if info.file_size > most:
            raise UnsupportedModel(f"{name[:100]!a}: {info.file_size} bytes, at most {most} are read")
        try:
            content = self._zip.read(info)
        except Exception as error:  # zipfile's, zlib's or the system's: headers that differ, a wrong checksum, an early end
            raise UnsupportedModel(f"{name[:100]!a} cannot be read: {type(error).__name__}") from None
        if len(content) != info.file_size:
            raise UnsupportedModel(f"{name[:100]!a}: {len(content)} bytes, the zip's directory says {info.file_size}")
        return content

    def check_order(self, name: str) -> None:
        """Raises UnsupportedModel where a member of that name says that numbers are not little-endian."""
        if name in self._infos and self.read(name, 16) != b"little":
            raise UnsupportedModel("its numbers are not little-endian")


def listed(file: Path) -> list[str]:
    """Names of a zip's members, whatever they are: TorchScript compresses some. Raises UnsupportedModel for a broken zip."""
    with _opened(file) as opened:
        return opened.namelist()


def _opened(source: Path | bytes) -> zipfile.ZipFile:
    try:
        opened = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Exception as error:  # zipfile raises whatever a broken directory leads it to
        raise UnsupportedModel(f"a broken zip: {type(error).__name__}") from None
    if len(opened.infolist()) > MAX_MEMBERS:
        opened.close()
        raise UnsupportedModel(f"a zip of more than {MAX_MEMBERS} members")
    return opened


def _check(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if name != info.orig_filename or "\\" in name or name.startswith("/") or ".." in name.split("/"):
        raise UnsupportedModel(f"a zip with a member of the name {info.orig_filename[:100]!a}, which leads elsewhere")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UnsupportedModel(f"a zip with a link, {name[:100]!a}")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
        raise UnsupportedModel(f"a zip with a compressed or encrypted member, {name[:100]!a}; torch writes none")
