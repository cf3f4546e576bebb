"""Answer requests over HTTP with an exported network (`scripts/serve.py`, `src/api.py`).

`batching` gathers what waits into batches for the network, `uploads` reads requests and refuses bad ones, `metrics`
counts, `service` puts them together, and `app` has the endpoints. No framework is imported, unless a run that was not
exported is served.
"""

from src.kit.serving.app import create_app, serve_command
from src.kit.serving.service import Settings, find_model

__all__ = ["Settings", "create_app", "find_model", "serve_command"]
