"""Print a command of the README, so that what is run in CI is what readers see: ``readme_command.py demo|tests``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

which = sys.argv[1]
text = (Path(__file__).parents[1] / "README.md").read_text()
found = re.search(rf"<!-- command: {which} -->\n```console\n(.*?)```", text, re.S)
if not found:
    sys.exit(f"the README has no command '{which}'")
print(re.sub(r"^\$ ", "", found.group(1), flags=re.M))
