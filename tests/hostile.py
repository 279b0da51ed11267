"""Bad input, made by code: files of the wrong kind, and for each form of file contents that look right at first.

Each entry makes a file at a path. `EVERYWHERE` are for any file, the others for one form. What is here must end in a named
error, soon; tests/test_hostile.py brings it to the doors.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy

Made = bytes | Callable[[Path], object]


def put(path: Path, made: Made) -> None:
    """Make the file."""
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        made(path)


def _socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # A socket's path has at most 108 characters.
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _loop(path: Path) -> None:
    other = path.with_name(f"other-{path.name}")
    path.symlink_to(other)
    other.symlink_to(path)


WORDS = "größte Länge\n"
EVERYWHERE: dict[str, Made] = {
    "folder": Path.mkdir,
    "folder with files": lambda path: (path.mkdir(), (path / path.name).write_text("x")),
    "named pipe": os.mkfifo,
    "link to a pipe": lambda path: (
        os.mkfifo(path.with_name("pipe")),
        path.symlink_to(path.with_name("pipe")),
    ),
    "socket": _socket,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "terminal": lambda path: path.symlink_to("/dev/ptmx"),
    "links in a circle": _loop,
    "link to itself": lambda path: path.symlink_to(path),
    "link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "link to its folder": lambda path: path.symlink_to(path.parent),
    "process memory": lambda path: path.symlink_to("/proc/self/mem"),
    "nothing": b"",
    "a zero": b"\x00",
    "zeros": bytes(5000),
    "a line end": b"\n",
    "random bytes": numpy.random.default_rng(0).bytes(3000),
    "a picture": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\n",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(60),
    "a pickle": pickle.dumps({"a": 1}),
    "an old pickle": pickle.dumps([1, 2], protocol=0),
    "bzip2": bz2.compress(b"a: 1\n"),
    "xz": lzma.compress(b"a: 1\n"),
    "Windows' quotes": b"\x93a\x94: \x931\x94\n",
    "half a character": "a: ü".encode()[:-1],
    "overlong UTF-8": b"a: \xc0\xaf\n",
    "a surrogate in UTF-8": b"a: \xed\xa0\x80\n",
    "UTF-16 and its mark": WORDS.encode("utf-16"),
    "UTF-16 without": WORDS.encode("utf-16-le"),
    "UTF-32": WORDS.encode("utf-32"),
    "latin-1": WORDS.encode("latin-1"),
    "a page of the web": b"<!DOCTYPE html>\n<html><body>404 {not} found</body></html>\n",
    "a pointer to large storage": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "markers of a conflict": b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n",
}


# --- YAML ---------------------------------------------------------------------------------------------------------------


def bomb(key: str = "a", levels: int = 40) -> str:
    """YAML whose last value has 10 ** levels parts when written out, in a few lines."""
    lines = [f"{key}0: &{key}0 [x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*{key}{level - 1}"] * 10)
        lines.append(f"{key}{level}: &{key}{level} [{aliases}]")
    return "\n".join(lines) + "\n"


def merges(levels: int = 12) -> str:
    lines = ["m0: &m0 {x: 1}"]
    for level in range(1, levels):
        lines.append(f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 10)}]}}")
    return "\n".join(lines) + "\n"


YAML: dict[str, Made] = {
    "packed": gzip.compress(b"a: 1\n"),
    "a list": b"- 1\n- 2\n",
    "a word": b"word\n",
    "a number": b"17\n",
    "a date": b"2020-01-01\n",
    "null": b"null\n",
    "only a comment": b"# nothing\n",
    "deep lists": b"[" * 50_000,
    "deep lists that end": b"a: " + b"[" * 3000 + b"]" * 3000,
    "deep mappings": b"{a: " * 50_000,
    "deep indentation": b"".join(b" " * level + b"a:\n" for level in range(1000)) + b"x: [",
    "dashes": b"- " * 30_000,
    "question marks": b"? " * 30_000,
    "deep keys": b"? [" * 3000,
    "an integer of 5,000 digits": b"a: " + b"9" * 5000,
    "a hexadecimal of 5,000 digits": b"data: 0x" + b"f" * 5000,
    "sexagesimals": b"data: 1" + b":59" * 5000,
    "an impossible date": b"a: 2020-13-45\n",
    "an impossible time": b"a: 2020-01-01 99:99:99\n",
    "code": b"a: !!python/object/apply:os.system [echo]\n",
    "code in a name": b"a: !!python/name:os.system\n",
    "an unknown tag": b"a: !unknown 1\n",
    "a wrong tag": b"a: !!int word\n",
    "a wrong float": b"a: !!float word\n",
    "a wrong bool": b"a: !!bool word\n",
    "wrong base64": b"a: !!binary \xc3\xbc\n",
    "no alias": b"a: *nothing\n",
    "an anchor twice": b"a: &x 1\nb: &x *x\n",
    "a list in itself": b"&a [*a]\n",
    "a mapping in itself": b"&a {a: *a}\n",
    "a bomb of aliases": bomb().encode(),
    "a bomb as a key": bomb().encode() + b"? *a39\n: 1\n",
    "a bomb of merges": merges().encode(),
    "a bomb where a section is": bomb(levels=30).encode() + b"train: *a29\ngrid: *a28\ndata: {name: *a29}\n",
    "two documents": b"a: 1\n---\nb: 2\n",
    "a directive": b"%YAML 3.0\n---\na: 1\n",
    "a bad directive": b"%TAG ! !\n%TAG ! !\n---\na: 1\n",
    "a key twice": b"a: 1\na: 2\n",
    "a list as a key": b"? [1, 2]\n: 1\n",
    "a mapping as a key": b"? {a: 1}\n: 1\n",
    "a tab": b"a:\n\tb: 1\n",
    "an open quote": b'a: "open\nb: 1\n',
    "an open bracket": b"a: [1, 2\n",
    "two on a line": b"a: b: c\n",
    "a bad escape": b'a: "\\q"\n',
    "an escaped surrogate": b'data: {name: "\\ud800"}\n',
    "an escape behind Unicode": b'a: "\\U00110000"\n',
    "control characters": b"a: \x07\x08\n",
    "a megabyte and more": b"a: " + b"x" * 1_200_000,
    "ten thousand keys": b"".join(b"k%d: 1\n" % number for number in range(10_000)),
    "a very long key": b"k" * 200_000 + b": 1\n",
    "a merge of a word": b"<<: word\n",
    "a merge of a list of words": b"a: {<<: [x, y]}\n",
    "JSON cut short": b'{"a": {"b": ',
    "an environment": b"PATH=/bin\nHOME=/\n",
    "a template": b"a: {{ value }}\n",
}


# --- JSON ---------------------------------------------------------------------------------------------------------------

JSON: dict[str, Made] = {
    "packed": gzip.compress(b"{}"),
    "a list": b"[1, 2]",
    "an empty mapping": b"{}",
    "an empty list": b"[]",
    "a word": b'"word"',
    "a number": b"17",
    "null": b"null",
    "true": b"true",
    "not a number": b"NaN",
    "cut short": b'{"a": [1, 2',
    "cut within a word": b'{"a": "b',
    "two values": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "a comment": b"// words\n{}",
    "deep lists": b"[" * 100_000,
    "deep mappings": b'{"a":' * 100_000,
    "an integer of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a large exponent": b"1e99999",
    "a bad escape": b'{"a": "\\q"}',
    "a line end in a word": b'{"a": "b\nc"}',
    "YAML": b"a: 1\nb: [2]\n",
    "lines of JSON": b'{"a": 1}\n{"a": 2}\n',
    "other keys": json.dumps({"rows": [], "version": -1}).encode(),
    "keys that hold nothing": json.dumps(
        dict.fromkeys(("images", "size", "aspect", "classes", "parents", "class_nodes", "names", "title", "blocks"))
    ).encode(),
    "keys that hold words": json.dumps(
        dict.fromkeys(("classes", "parents", "class_nodes", "names", "title", "blocks", "version"), "word")
    ).encode(),
}


# --- CSV ----------------------------------------------------------------------------------------------------------------


def packed_bomb(unfolded: int, block: bytes) -> bytes:
    """What gzip unfolds to so many bytes of this block again and again."""
    return gzip.compress(block) * (unfolded // len(block))


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit turned."""
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


ROWS = b"".join(b"image%d,%d\n" % (row, row * 7919 % 1000) for row in range(2000))
CSV: dict[str, Made] = {
    "only a header": b"id,path\n",
    "a row too long": b"id,path\na,b\nc,d,e\n",
    "a line of 20 MiB": b"id,path\n" + b"x" * (20 * 2**20),
    "a header of 20 MiB": b"x," * (10 * 2**20) + b"\n",
    "a picture's name": b"id,path\n" + b"\xff\xd8\xff\xe0,b\n",
    "JSON": b'{"id": ["a"], "path": ["b"]}',
    "a table of the web": b"<table><tr><td>id</td></tr></table>",
    "an old sheet": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    "a column twice": b"id,id,path,path\na,a,b,b\n",
    "no column": b"\n\n\n",
    "only separators": b",,,\n,,,\n",
    "no known column": b"x,y\n1,2\n",
    "a mark and nothing": b"\xef\xbb\xbf",
    "a row too long, late": b"id,path\n" + b"a,b\n" * 5000 + b"c,d,e\n",
    "latin-1, late": b"id,path\n" + b"a,b\n" * 5000 + "größer,d\n".encode("latin-1"),
    "zero bytes in a cell": b"id,path\na,b\x00c\n",
    "a file of settings": b"[section]\nkey = value\n",
    "YAML": b"id: a\npath: b\n",
    "XML": b"<?xml version='1.0'?>\n<rows><row id='a'/></rows>\n",
    "statements": b"INSERT INTO images VALUES ('a', 'b');\n",
    "Markdown": b"| id | path |\n|---|---|\n| a | b |\n",
    "fixed widths": b"id    path\na     b\n",
    "a list of paths": b"a.png\nb.png\n",
    "a message": b"Traceback (most recent call last):\n  File\n",
    "a carriage return in the name": b"i\rd,path\na,b\n",
    "separators of another kind": b"id|path\na|b\n",
}
PACKED: dict[str, Made] = {
    "not packed": b"id,path\na,b\n",
    "cut short": gzip.compress(ROWS)[:-100],
    "without its end": gzip.compress(ROWS)[:-8],
    "a wrong checksum": gzip.compress(ROWS)[:-8] + bytes(8),
    "only its beginning": gzip.compress(ROWS)[:10],
    "a byte flipped early": flipped(gzip.compress(ROWS), 30),
    "a byte flipped late": flipped(gzip.compress(ROWS), len(gzip.compress(ROWS)) - 40),
    "a method that is none": flipped(gzip.compress(ROWS), 2),
    "words behind it": gzip.compress(ROWS) + b"words",
    "packed twice": gzip.compress(gzip.compress(ROWS)),
    "another packer": bz2.compress(ROWS),
    "an archive": None,  # filled in below
    "a bomb in a cell": packed_bomb(80 * 2**20, b"x" * 2**20),
    "a bomb of rows": gzip.compress(b"id,path\n") + packed_bomb(80 * 2**20, b"a,b\n" * 2**18),
    "a bomb in quotes": gzip.compress(b'id,path\na,"') + packed_bomb(80 * 2**20, b"x" * 1023 + b"\n"),
    "a bomb of separators": packed_bomb(80 * 2**20, b"," * 2**20),
}


# --- Arrays -------------------------------------------------------------------------------------------------------------


def npy(header: str, content: bytes = bytes(64), version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file with this header, whatever it says."""
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + content


def described(descr: str = "<f8", shape: str = "(8,)", order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"


def saved(array: numpy.ndarray, allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    numpy.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def trap(path: Path) -> numpy.ndarray:
    objects = numpy.empty(1, dtype=object)
    objects[0] = Trap(path)
    return objects


NPY: dict[str, Made] = {
    "packed": gzip.compress(saved(numpy.ones(8))),
    "an archive": None,
    "only its magic": b"\x93NUMPY",
    "half a header": npy(described())[:40],
    "an unknown version": npy(described(), version=(9, 0)),
    "version 0": npy(described(), version=(0, 0)),
    "a header that is no mapping": npy("[1, 2]"),
    "a header that is no Python": npy("{'descr': "),
    "a header with code": npy("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (8,)}"),
    "a header without shape": npy("{'descr': '<f8', 'fortran_order': False}"),
    "a header with more": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8,), 'more': 1}"),
    "a header of 3 GB": b"\x93NUMPY\x02\x00" + struct.pack("<I", 3 * 10**9) + b"{}",
    "a long header": npy(described() + " " * 50_000, version=(2, 0)),
    "a deep header": npy("(" * 5000),
    "a promise of terabytes": npy(described(shape=f"({10**13},)")),
    "a promise past all numbers": npy(described(shape=f"({10**30}, {10**30})")),
    "a negative shape": npy(described(shape="(-8,)")),
    "negative twice": npy(described(shape="(-2, -4)")),
    "a shape of fractions": npy(described(shape="(8.0,)")),
    "a shape of words": npy(described(shape="('a',)")),
    "a shape that is a number": npy(described(shape="8")),
    "an unknown kind": npy(described(descr="<q99")),
    "objects": npy(described(descr="|O")),
    "a pickled object": saved(trap(Path("trapped")), allow_pickle=True),
    "an object in a record": npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}"),
    "cut short": saved(numpy.ones(100))[:-8],
    "order that is a word": npy(described(order="'yes'")),
}


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def with_method(number: int) -> bytes:
    """An archive that says its members were packed by method `number`."""
    content = bytearray(archive({"prob.npy": saved(numpy.ones(8))}))
    content[8:10] = struct.pack("<H", number)
    place = content.index(b"PK\x01\x02")
    content[place + 10 : place + 12] = struct.pack("<H", number)
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(archive({"prob.npy": saved(numpy.ones(8))}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def archive_bomb(size: int) -> bytes:
    """An archive that says its one array unfolds to so many bytes."""
    content = bytearray(
        archive({"prob.npy": npy(described(shape=f"({size // 8},)"), bytes(2**20))}, zipfile.ZIP_DEFLATED)
    )
    place = content.index(b"PK\x01\x02")
    content[22:26] = content[place + 24 : place + 28] = struct.pack("<I", size)
    return bytes(content)


def twice() -> bytes:
    content = archive({"prob.npy": saved(numpy.ones(8)), "qrob.npy": saved(numpy.ones(8))})
    return content.replace(b"qrob.npy", b"prob.npy")


ONES = saved(numpy.ones((4, 2)))
NPZ: dict[str, Made] = {
    "packed": gzip.compress(archive({"prob.npy": ONES})),
    "a single array": ONES,
    "an empty archive": archive({}),
    "encrypted": encrypted(),
    "method 1": with_method(1),
    "method 9": with_method(9),
    "method 12": with_method(12),
    "method 14": with_method(14),
    "method 99": with_method(99),
    "cut short": archive({"prob.npy": ONES})[:-30],
    "without its list": archive({"prob.npy": ONES})[:120],
    "only its end": archive({"prob.npy": ONES})[-22:],
    "a bit flipped": flipped(archive({"prob.npy": saved(numpy.ones((400, 2)))}), 2000),
    "a bit flipped, packed": flipped(archive({"prob.npy": saved(numpy.arange(2000.0))}, zipfile.ZIP_DEFLATED), 900),
    "a bomb": archive_bomb(2**31),
    "an array twice": twice(),
    "words instead of an array": archive({"prob.npy": b"words"}),
    "no array": archive({"prob.npy": b""}),
    "a text file": archive({"readme.txt": b"words"}),
    "a member outside": archive({"../../prob.npy": ONES}),
    "an absolute member": archive({"/prob.npy": ONES}),
    "a folder": archive({"folder/": b""}),
    "a nested archive": archive({"inner.npz": archive({"prob.npy": ONES})}),
    "an Office document": archive({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"}),
    "a torch file": archive({"archive/data.pkl": pickle.dumps({}), "archive/version": b"3"}),
    "other arrays": archive({"x.npy": ONES, "y.npy": ONES}),
}
NPZ |= {f"with {name}": archive({"prob.npy": made}) for name, made in NPY.items() if isinstance(made, bytes)}
NPY["an archive"] = archive({"prob.npy": ONES})
PACKED["an archive"] = archive({"table.csv": ROWS})


# Values of arrays that a file of external predictions may not have, beside id (3,), classes (2,) and prob (3, 2).
ARRAYS: dict[str, dict[str, numpy.ndarray]] = {
    "complex probabilities": {"prob": numpy.ones((3, 2), dtype=complex)},
    "dates": {"prob": numpy.zeros((3, 2), dtype="datetime64[D]")},
    "words as probabilities": {"prob": numpy.full((3, 2), "half")},
    "bytes as ids": {"id": numpy.array([b"a", b"b", b"c"])},
    "numbers as ids": {"id": numpy.arange(3)},
    "records": {"prob": numpy.zeros(3, dtype=[("a", "f8"), ("b", "f8")])},
    "one number": {"prob": numpy.array(0.5)},
    "one id": {"id": numpy.array("a")},
    "a cube": {"prob": numpy.ones((3, 2, 2))},
    "turned": {"prob": numpy.ones((2, 3))},
    "no rows": {"prob": numpy.ones((0, 2)), "id": numpy.empty(0, dtype="U1")},
    "no class": {"prob": numpy.ones((3, 0)), "classes": numpy.empty(0, dtype="U1")},
    "infinite": {"prob": numpy.full((3, 2), numpy.inf)},
    "not a number": {"prob": numpy.full((3, 2), numpy.nan)},
    "an id twice": {"id": numpy.array(["a", "a", "b"])},
    "a blank id": {"id": numpy.array(["a", "", "b"])},
    "a class twice": {"classes": numpy.array(["x", "x"])},
    "half true": {"labels": numpy.array(["x"]), "true": numpy.full((3, 1), 0.5)},
    "an unknown array": {"probs": numpy.ones((3, 2))},
    "an unknown split": {"split": numpy.array(["tset"] * 3)},
}
