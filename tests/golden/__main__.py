"""Renew what is stored: python -m tests.golden"""

import shutil
import tempfile
from pathlib import Path

from severity.core import files
from tests import golden

with tempfile.TemporaryDirectory() as made:
    golden.study(Path(made), golden.settings())
    shutil.copy(Path(made) / "metrics/table.csv", golden.HERE / "table.csv")
    files.write_json(golden.HERE / "lab.json", golden.lab(Path(made)))
