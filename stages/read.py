"""Read the tables of a collection into one form, the same for all.

Reads   params.yaml; data/ids.key, where data.hidden_names is true; data/raw/<name>;
        the tables in the folder datasets.<name>.root
Writes  data/collection (see severity/collections/collection.py)
Run     python -m stages.read
Time    seconds: no image is opened
"""

import inspect

from severity import datasets
from severity.collections import collection, hidden_names
from severity.core import errors, params, stale


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    read = datasets.find(section.get("kind", name)).read
    # What is said under `collect` about the tables holds here too.
    known = {**section["collect"], "section": f"datasets.{name}"}
    shared = known.keys() & inspect.signature(read).parameters.keys()
    data = read(section["root"], **section["read"], **{key: known[key] for key in shared})
    if settings["data"]["hidden_names"]:
        data = hidden_names.collection(data, hidden_names.read_key())
    collection.check(data)
    data.write("data/collection")
    print(f"{name}: {len(data.table)} images, {len(data.labels)} labels")
    for note, value in data.notes.items():
        print(f"  {note}: {value}")


if __name__ == "__main__":
    errors.run(main)
