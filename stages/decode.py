"""Decode and resize every image once.

Reads   params.yaml; data/raw/<name>; the folder datasets.<name>.root
Writes  data/images (see severity/decoded.py); on the way data/unfinished, from which a stopped run is taken up again
Run     python -m stages.decode
Time    TIME
"""

from severity import collection, datasets, decoded, errors, params


def main() -> None:
    settings = params.load()
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    read = datasets.find(name).read
    found = params.call(read, section["root"], values=section["read"], where=f"datasets.{name}.read")
    collection.check(found)
    summary = params.call(
        decoded.decode,
        "data/images",
        found,
        values=settings["decode"],
        where="decode",
        dataset=name,
        root=section["root"],
        scratch="data/unfinished",
    )
    print(decoded.sentence(summary))


if __name__ == "__main__":
    errors.run(main)
