"""Ids of images and patients that say nothing: keyed hashes of them, for what git tracks and others see.

A hash alone hides nothing, for whoever guesses the names (numbers of records, dates of birth) hashes the guesses and
compares. So the hash is keyed: HMAC with SHA-256 (RFC 2104), the key in a file that stays out of git. Whoever has the
key and the names has the connection.
"""

import hashlib
import hmac
from collections.abc import Collection as Some
from dataclasses import replace
from pathlib import Path

import numpy

from severity.collections.collection import Collection
from severity.collections.external_files import Sheet, stem
from severity.core import inputs
from severity.core.errors import SeverityError

KEY = Path("data/ids.key")
SHORTEST, LONGEST = 32, 4096  # characters of the key
LENGTH = 16  # hex digits of a hash: among a million names, two are alike once in forty million studies


def read_key(path: Path | str = KEY) -> bytes:
    """The key. Raises SeverityError where it is missing or too short, with the command that makes one."""
    try:
        key = inputs.read_bytes(path, LONGEST).strip()
    except FileNotFoundError:
        key = b""
    if len(key) < SHORTEST:
        raise SeverityError(
            f"params.yaml: data.hidden_names is true, but {path} holds no key of at least {SHORTEST} characters. Make "
            "one, and keep it out of git and of what you publish: python -c 'import secrets; "
            f"print(secrets.token_hex())' > {path}"
        )
    return key


def hidden(name: str, kind: str, key: bytes) -> str:
    """What stands for the name of an image or a patient (`kind`): the same for the same key."""
    return hmac.new(key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()[:LENGTH]


def collection(given: Collection, key: bytes) -> Collection:
    """The collection with other ids and patients; the paths of its images stay, for decoding."""
    ids = {name: hidden(name, "image", key) for name in given.table["id"]}
    table = given.table.assign(
        id=given.table["id"].map(ids), patient=[hidden(name, "patient", key) for name in given.table["patient"]]
    )
    return replace(given, table=table, boxes=given.boxes.assign(id=given.boxes["id"].map(ids)))


def sheet(given: Sheet, known: Some[str], key: bytes) -> Sheet:
    """External predictions with the ids of such a collection.

    Args:
        known: its ids; a name that gives none of them may do so without the suffix of an image file.
    """
    known = set(known)
    whole = [hidden(name, "image", key) for name in given.ids.tolist()]
    bare = [hidden(stem(name), "image", key) for name in given.ids.tolist()]
    ids = [
        second if first not in known and second in known else first for first, second in zip(whole, bare, strict=True)
    ]
    patients = None if given.patients is None else [hidden(name, "patient", key) for name in given.patients.tolist()]
    return replace(given, ids=numpy.array(ids), patients=None if patients is None else numpy.array(patients))
