"""Draw the phantom collection, or check a collection from outside and write its manifest.

Reads   params.yaml; the folder datasets.<name>.root of a collection from outside
Writes  data/raw/<name>
Run     python -m stages.collect
Time    seconds: the manifest of 223,648 images of CheXpert's form took 4 s on a local disk; drawing depends on the phantom
"""

from pathlib import Path

from severity import datasets
from severity.core import errors, params


def main() -> None:
    settings = params.load()
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    out = Path("data/raw") / name
    images = params.call(
        datasets.find(name).collect, section["root"], out, values=section["collect"], where=f"datasets.{name}.collect"
    )
    print(f"{out}: {images} images")


if __name__ == "__main__":
    errors.run(main)
