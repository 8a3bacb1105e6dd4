"""Makes the lab importable: `python3 -m unittest discover -s lab/tests`."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
