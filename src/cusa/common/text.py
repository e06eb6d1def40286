"""Reads text files with byte order marks, gzip, and encodings other than UTF-8. Files are read in blocks."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TextIO

from cusa.errors import DataError

# UTF-32 stands before UTF-16: its mark of little-endian files starts with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MARK = "\ufeff"  # a byte order mark, once it is decoded
GZIP = b"\x1f\x8b"
PICTURE = "picture; name a file of text, such as a table (CSV, JSON) of pictures and their captions"
AS_PARQUET = "write it as Parquet (datasets: Dataset.to_parquet; pyarrow: parquet.write_table)"
NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive (a spreadsheet of Excel is one); save the table as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Office document; save the table as CSV",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it, or compress it with gzip",
    b"BZh": "compressed with bzip2; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or compress it with gzip",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": f"an Arrow file; {AS_PARQUET}",
    b"\xff\xff\xff\xff": f"an Arrow stream, as Dataset.save_to_disk writes; {AS_PARQUET}",
    GZIP: "compressed with gzip twice; unpack it once (gunzip)",
    b"\x89HDF": "an HDF5 file; write the table as CSV or Parquet",
    b"\xff\xd8\xff": f"a JPEG {PICTURE}",
    b"\x89PNG": f"a PNG {PICTURE}",
    b"GIF8": f"a GIF {PICTURE}",
    b"RIFF": f"a WebP {PICTURE}",
    b"II*\0": f"a TIFF {PICTURE}",
    b"MM\0*": f"a TIFF {PICTURE}",
    b"%PDF": "a PDF document; name a table, as CSV, JSON or Parquet",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x93NUMPY": "a NumPy array; write the table as CSV or Parquet",
    b"PAR1": "a Parquet file; only the formats `table` and `parquet` read those",
    **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle of Python; write the table as CSV or Parquet"),
}
# What a download leaves in the place of the data, whatever the ending of the file.
STAND_INS = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the data; run `git lfs pull`",
    b"<!doctype html": "is an HTML page, perhaps of a download that failed; download the data again",
    b"<html": "is an HTML page, perhaps of a download that failed; download the data again",
    b"<table": "is a table in HTML, which some programs call an Excel file; write it as CSV",
    b"<?xml": "is XML; write the table as CSV, JSON or Parquet",
}
# The usual encodings of files that are not UTF-8. Fewer choices make a better guess.
ENCODINGS = [
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp932",
    "big5",
    "euc_jp",
    "euc_kr",
    "gb18030",
    "koi8_r",
    "mac_roman",
]
ORC = re.compile(rb"ORC.{0,60}?[\x00-\x08\x0e-\x1a]", re.DOTALL)  # the letters alone may begin a heading
# Text of these encodings has 7 bits a byte, and so is valid UTF-8.
SEVEN_BITS = {b"\x1b$B": "ISO-2022-JP", b"\x1b$@": "ISO-2022-JP", b"\x1b$)C": "ISO-2022-KR"}
HOLE = re.compile(rb"\0{8,}")  # no encoding has as many NULs in text
# Halves of characters, each in three bytes: CESU-8, which Java and old databases write.
HALF = re.compile(rb"\xed[\xa0-\xbf]")
CESU_8 = (
    "CESU-8, with emoji as two halves; export it again as UTF-8, or convert its bytes in Python: "
    "decode('utf-8', 'surrogatepass').encode('utf-16', 'surrogatepass').decode('utf-16')"
)
TAR_AT = 257  # where a tar says that it is one
BLOCK = 1 << 16
GUESSED_ON = 8192
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is gzip, whatever its ending.

    Raises DataError if the file does not exist, cannot be read, or is a pipe, and if it is cut off, also while the
    block reads it.
    """
    refuse_pipe(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        opening: Callable[[], Any] = partial(gzip.open, path, "rb") if packed else partial(path.open, "rb")
        with opening() as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file ({error}); it may have been cut off.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from None


@contextmanager
def open_text(path: Path, encoding: str | None = None, newline: str | None = "") -> Iterator[TextIO]:
    """The text of a file: UTF-8, or what its byte order mark or else `encoding` says; unpacked if it is gzip.

    `newline` is that of `open`; by default ends of lines stay as they are. Raises DataError as `open_bytes` does, and
    if the bytes are no such text: with the line from 1, the byte from 0, and the encoding that it may be instead.
    """
    with open_bytes(path) as binary:
        start = binary.read(BLOCK)
        binary.seek(0)
        name = _encoding(path, start, encoding)
        # A file object of gzip is not a BufferedReader, and small reads of it are slow.
        buffered = io.BufferedReader(binary, BLOCK)  # type: ignore[type-var]
        with io.TextIOWrapper(buffered, encoding=name, newline=newline) as reader:
            try:
                yield reader
            except UnicodeDecodeError:
                raise DataError(_where_it_fails(path, name)) from None
            except UnicodeError as error:  # of codecs that need more than the bytes, such as a mark at the start
                raise DataError(
                    f"{path} is not {_shown(name)} text ({error}); dataset.encoding names another encoding than it "
                    "has. UTF-16 without a byte order mark is utf-16-le or utf-16-be."
                ) from None


def text_lines(path: Path, encoding: str | None = None, newline: str | None = None) -> Iterator[str]:
    """The lines of a text file without their ends. Raises DataError as `open_text` does."""
    with open_text(path, encoding, newline) as file:
        for line in file:
            yield without_mark(line).removesuffix("\n").removesuffix("\r")


def without_mark(line: str) -> str:
    """A line without byte order marks at its start, which files with marks leave within a file that joins them."""
    return line.lstrip(MARK) if line.startswith(MARK) else line


def text_of(data: bytes, place: str) -> str:
    """The text of a small member of an archive, with or without a byte order mark; `place` names it in errors.

    Raises DataError if the bytes are neither UTF-8 nor marked as another encoding.
    """
    name = marked_encoding(data) or "utf-8"
    if name == "utf-8" and (seven := _seven_bits(data)) is not None:
        raise DataError(f"{place} is not UTF-8 text but {seven}.")
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        may_be = f", but {CESU_8}" if HALF.match(data, error.start) else _may_be(_guesses(data))
        raise DataError(f"{place}, byte {error.start}: is not {_shown(name)} text{may_be}.") from None


def marked_encoding(data: bytes) -> str | None:
    """The encoding that a byte order mark at the start of bytes says; None if there is no mark."""
    return next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)


def unstorable(text: str) -> str | None:
    """Why Parquet, JSON or file names cannot hold a text: half of a surrogate pair, or a NUL; None if they can."""
    if text.isascii() and "\0" not in text:  # most text is ASCII, and this test is fast
        return None
    if (match := UNSTORABLE.search(text)) is None:
        return None
    if match[0] == "\0":
        return "a NUL character"
    code = ord(match[0])
    # Python reads a byte of an argument that is no text of the locale as such a half.
    byte = f", or the byte {code - 0xDC00:#04x}, which is not UTF-8" if 0xDC80 <= code <= 0xDCFF else ""
    return f"half of a character (the lone surrogate \\u{code:04x}{byte})"


def is_text_encoding(name: str) -> bool:
    """Whether Python can read text in an encoding of this name."""
    try:
        return bool("a".encode(name))
    except (LookupError, UnicodeError):
        return False


def stand_in(start: bytes) -> str | None:
    """The kind of a file that was saved in place of data, by its first bytes, with advice; None for other files."""
    text = start[:BLOCK].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for sign, what in STAND_INS.items() if text.startswith(sign)), None)


def refuse_pipe(path: Path) -> None:
    """Raise DataError for a pipe or a device. Says nothing of what is not there or cannot be looked at.

    Files are opened more than once, for instance to see whether they are compressed. A pipe gives its bytes once, and
    without a writer it blocks its reader for ever.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise DataError(f"{path} is {what}, but is read more than once; write its content into a file, and name that.")


def refuse_stand_in(path: Path) -> None:
    """Raise DataError if a file has been saved in the place of data. Says nothing of what cannot be read."""
    refuse_pipe(path)
    try:
        with path.open("rb") as file:
            what = stand_in(file.read(GUESSED_ON))
    except OSError:
        return
    if what is not None:
        raise DataError(f"{path} {what}.")


def _encoding(path: Path, start: bytes, wanted: str | None) -> str:
    if (what := stand_in(start)) is not None:
        raise DataError(f"{path} {what}.")
    if (marked := marked_encoding(start)) is not None:
        return marked
    if wanted is not None:
        return wanted
    for magic, what in NO_TEXT.items():
        if start.startswith(magic):
            raise DataError(f"{path} is not text, but {what}.")
    if start[TAR_AT : TAR_AT + 5] == b"ustar":
        raise DataError(f"{path} is not text, but a tar; {_advice_for_tar(path)}.")
    if ORC.match(start):
        raise DataError(f"{path} is not text, but an ORC file; {AS_PARQUET}.")
    if (seven := _seven_bits(start)) is not None:
        raise DataError(f"{path} is not UTF-8 text but {seven}, by its escapes; {_convert(path, seven)}")
    if start[:GUESSED_ON].count(0) * 4 > len(start[:GUESSED_ON]):
        if hole := HOLE.search(start):
            raise DataError(
                f"{path} has {len(hole[0]):,} NULs after one another from byte {hole.start():,} on, as a copy that was "
                "cut off leaves; copy it again, or remove them."
            )
        name = "UTF-16BE" if start[0] == 0 else "UTF-16LE"
        raise DataError(
            f"{path} has a NUL in every second byte, so it may be {name} without a byte order mark; "
            + _convert(path, name)
        )
    return "utf-8"


def _advice_for_tar(path: Path) -> str:
    if path.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        return "expected a table or a file of text here; unpack it, and name such a file in it"
    return "give it the ending .tar, or unpack it"


def _seven_bits(data: bytes) -> str | None:
    """The encoding that escapes in the first bytes of text say, as those of Japanese mails do; None without any."""
    start = data[:BLOCK]  # one escape may be left in text of another encoding, which has bytes of eight bits
    return next((name for escape, name in SEVEN_BITS.items() if escape in start), None) if start.isascii() else None


def _where_it_fails(path: Path, name: str) -> str:
    """Read a file again up to the first byte that is not text; a reader of blocks does not know its position."""
    with open_bytes(path) as binary:
        decoder, offset, line, pending = codecs.getincrementaldecoder(name)(), 0, 1, 0
        while True:
            block = binary.read(BLOCK)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                # The decoder had kept the bytes of a character that the last block had cut.
                at = offset - pending + error.start
                line += error.object[: error.start].decode(name, "ignore").count("\n")
                words = f"{path}, line {line}, byte {at:,}: is not {_shown(name)} text ({error.reason})"
                if not name.startswith("utf-8"):
                    return f"{words}; the file is damaged, or dataset.encoding names another encoding than it has."
                if HALF.match(error.object, error.start):
                    return f"{words}, but {CESU_8}."
                guesses = _guesses(error.object[error.start :] + binary.read(BLOCK))
                return f"{words}{_may_be(guesses)}; {_convert(path, (*guesses, 'ENCODING')[0])}"
            offset += len(block)
            pending = len(decoder.getstate()[0])


def _shown(name: str) -> str:
    return name.removesuffix("-sig").upper() if name.startswith("utf") else name


def _convert(path: Path, encoding: str) -> str:
    return (
        f"convert it (iconv -f {encoding} -t UTF-8 {path.name} > new-{path.name}), or, for a file of the data set, say "
        f"dataset.encoding: {encoding} (cusa init --encoding {encoding})."
    )


def _guesses(data: bytes) -> list[str]:
    """The one or two encodings that the bytes look most like; none if they look like no text."""
    from charset_normalizer import from_bytes

    matches = from_bytes(data[:GUESSED_ON], cp_isolation=ENCODINGS)
    if (best := matches.best()) is None:
        return []
    # A few accents look alike in several encodings; that of Windows in Western Europe is the most common one, so first.
    alike = [match for match in matches if match.chaos <= best.chaos]
    western = ["cp1252"] if any("cp1252" in match.could_be_from_charset for match in alike) else []
    return list(dict.fromkeys([*western, str(best.encoding)]))


def _may_be(guesses: list[str]) -> str:
    return f", it may be {' or '.join(guesses)}" if guesses else ""
