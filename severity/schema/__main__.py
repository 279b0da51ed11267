"""Write the JSON Schema of params.yaml, by which editors complete and check it.

Writes  params.schema.json
Run     python -m severity.schema
"""

import json
from pathlib import Path

from severity import schema

if __name__ == "__main__":
    Path("params.schema.json").write_text(json.dumps(schema.json_schema(), indent=2) + "\n", encoding="utf-8")
