"""Read the tables of a collection into one form, the same for all.

Reads   params.yaml; data/raw/<name>; the tables in the folder datasets.<name>.root
Writes  data/collection (see severity/collections/collection.py)
Run     python -m stages.read
Time    seconds: no image is opened
"""

from severity import datasets
from severity.collections import collection
from severity.core import errors, params


def main() -> None:
    settings = params.load()
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    data = datasets.find(name).read(section["root"], **section["read"])
    collection.check(data)
    data.write("data/collection")
    print(f"{name}: {len(data.table)} images, {len(data.labels)} labels")
    for note, value in data.notes.items():
        print(f"  {note}: {value}")


if __name__ == "__main__":
    errors.run(main)
