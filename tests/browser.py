"""A headless Chromium that opens a page from disk and returns what a script found there."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# A window is never narrower than 500 pixels, a frame is. The page answers from its frame.
FRAME = """<!DOCTYPE html><style>body {{ margin: 0 }}</style><iframe id="page" width="{width}" height="900"></iframe>
<pre id="found"></pre><script>
addEventListener("message", (event) => {{ document.getElementById("found").textContent = event.data; }});
document.getElementById("page").src = {address};
</script>"""
# Written as a script of the page's own; `probe` may be async.
PROBE = """<script>addEventListener("load", async () => {{
  let found;
  try {{ found = await (async () => {{ {script} }})(); }} catch (error) {{ found = "error: " + error.stack; }}
  parent.postMessage(JSON.stringify(found), "*");
}});</script></body>"""


def look(page: Path, script: str, *, width: int) -> Any:
    """What the body of a function, `script`, returns in the page at a width in pixels. Skips where there is no
    Chromium.

    Whatever the page writes to the console fails the test, as does an exception.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        probed = Path(folder) / "page.html"
        text = page.read_text(encoding="utf-8")
        assert text.count("</body>") == 1
        probed.write_text(text.replace("</body>", PROBE.format(script=script)), encoding="utf-8")
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(width=width, address=json.dumps(probed.as_uri())), encoding="utf-8")
        command = [program, *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={max(width, 500)},900"]
        command += ["--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom", frame.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found and found[1], f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    answer = json.loads(html.unescape(found[1]))
    assert not str(answer).startswith("error: "), answer
    return answer
