"""``python -m bench.server.apps MODULE N``: makes N sessions, and prints their tokens as JSON."""

import importlib
import json
import sys

print(json.dumps(importlib.import_module(sys.argv[1]).tokens(int(sys.argv[2]))))
