"""The service for ASGI servers: `uvicorn src.api:app --host 0.0.0.0 --port 8000`.

MODEL_PATH names a run, an export or an .onnx file; without it, the newest export in outputs/ answers. Other settings
are in the guide. `python scripts/serve.py` starts the same service.
"""

from src.kit.errors import UserError, exit_with
from src.kit.serving import create_app

try:
    app = create_app()
except UserError as error:
    exit_with(str(error))
