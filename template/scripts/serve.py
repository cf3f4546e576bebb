"""Answer requests over HTTP with a trained network:

    python scripts/serve.py outputs/RUN/export               # or a run, or an .onnx file; the newest export without one
    curl -F file=@photo.jpg http://127.0.0.1:8000/predict
    python scripts/serve.py MODEL --other MODEL2             # both predict, MODEL answers; /metrics compares them
    python scripts/serve.py MODEL --other MODEL2 --share 0.1 # MODEL2 answers a tenth of the requests
    SERVE_API_KEY=... python scripts/serve.py --host 0.0.0.0 --port 8000 --rate 50

http://127.0.0.1:8000 is a page to try it, /docs describes its endpoints, /metrics is for Prometheus, /drift shows the
latest data beside the training data. Photos that arrive while the network computes are its next batch. With the key in
the environment, requests need it, and /reload and /rollback replace the model.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="", help="a run, an export or an .onnx file")
    parser.add_argument("--other", help="a second model, whose predictions are only compared (none)")
    parser.add_argument("--share", type=float, help="of the requests that --other answers, from 0 to 1 (0)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: of all networks (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="to listen on (8000)")
    parser.add_argument("--rate", type=float, help="requests a second that one client may send (any)")
    parser.add_argument("--upload-mb", type=int, help="size of a request (10)")
    parser.add_argument("--pixels", type=int, help="of an image (25,000,000)")
    parser.add_argument("--batch", type=int, help="images computed at once (16)")
    parser.add_argument("--queue", type=int, help="images that may wait, before requests are answered with 503 (256)")
    parser.add_argument("--workers", type=int, help="batches computed at the same time (one per core)")
    parser.add_argument("--cache-mb", type=int, help="results that are kept; 0: none (64)")
    if "--help" not in argv and "-h" not in argv:  # help needs no packages
        from src.kit.serving import Settings, serve_command
    options = vars(parser.parse_args(argv))
    host, port, model = options.pop("host"), options.pop("port"), options.pop("model")
    given = {name: value for name, value in options.items() if value is not None} | (
        {"model_path": model} if model else {}
    )
    serve_command(replace(Settings.from_environment(), **given), host, port)


if __name__ == "__main__":
    run_main(main)
