"""Stands for any stage: each out becomes a digest of what the stage reads. It is run by the graph of tests/test_reruns.py.

Run     python stub.py '{"reads": [paths], "params": [keys], "outs": {out: [what of these it does not depend on]}}'

It needs params.yaml as JSON, which is YAML too, and nothing but the standard library, so that it starts at once.
"""

import hashlib
import json
import sys
from pathlib import Path

# Other stages name single files of the folders that a stage writes.
FILES = ("images.csv", "collection.json")


def bytes_of(path: Path) -> bytes:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return b"".join(str(file).encode() + file.read_bytes() for file in files)


def value(params: dict, key: str) -> bytes:
    for part in key.split("."):
        params = params[part]
    return json.dumps(params).encode()


def main() -> None:
    stage, params = json.loads(sys.argv[1]), json.loads(Path("params.yaml").read_text())
    reads = {path: bytes_of(Path(path)) for path in stage["reads"]}
    reads |= {key: value(params, key) for key in stage["params"]}
    for out, without in stage["outs"].items():
        digest = hashlib.sha256(b"".join(reads[name] for name in sorted(set(reads) - set(without)))).hexdigest()
        for path in [Path(out)] if Path(out).suffix else [Path(out, name) for name in FILES]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path} {digest}\n")


if __name__ == "__main__":
    main()
