"""Divide a collection by patient and turn the states of its labels into targets.

Reads   params.yaml; data/collection, data/images, data/hierarchies/ (for closure); the example images themselves
Writes  data/prepared (see severity/prepared.py). Without images (severity/alone.py): a note of that
Run     python -m stages.prepare
Time    seconds
"""

from severity import alone, decoded, errors, params, preparation, trees
from severity.collection import Collection


def main() -> None:
    settings = params.load()
    if alone.without_images(settings):
        print(alone.leave_out("data/prepared"))
        return
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    collection = Collection.read("data/collection")
    # Labels stay what they are under a null hierarchy: closure follows the tree that the null is derived from.
    tree = section["hierarchy"].partition("@")[0]
    summary = params.call(
        preparation.prepare,
        "data/prepared",
        collection,
        decoded.read_index("data/images")["id"].tolist(),
        trees.named("data/hierarchies", tree, collection.labels, collection.facts),
        values=settings["prepare"],
        where="prepare",
        dataset=name,
        root=section["root"],
        policies=section["labels"],
    )
    print(preparation.sentence(summary))


if __name__ == "__main__":
    errors.run(main)
