"""Divide a collection by patient and turn the states of its labels into targets.

Reads   params.yaml; data/collection, data/images, data/hierarchies/ (for closure); the example images themselves
Writes  data/prepared (see severity/prepared/prepared.py). Without images (severity/core/without_images.py): a
        note of that
Run     python -m stages.prepare
Time    seconds
"""

from severity.collections.collection import Collection
from severity.core import errors, params, stale, without_images
from severity.preparation import preparation
from severity.prepared import decoded
from severity.tree import trees


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    if without_images.without_images(settings):
        print(without_images.leave_out("data/prepared"))
        return
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    collection = Collection.read("data/collection")
    # Labels stay what they are under a null hierarchy: closure follows the tree that the null is derived from.
    tree = section["hierarchy"].partition("@")[0]
    summary = preparation.prepare(
        "data/prepared",
        collection,
        decoded.read_index("data/images")["id"].tolist(),
        trees.named("data/hierarchies", tree, collection.labels, collection.facts),
        dataset=name,
        root=section["root"],
        policies=section["labels"],
        sixteen_bits=settings["decode"]["sixteen_bits"],
        **settings["prepare"],
    )
    print(preparation.sentence(summary))


if __name__ == "__main__":
    errors.run(main)
