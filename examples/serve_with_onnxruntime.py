"""Export to ONNX, and answer pictures over HTTP with onnxruntime: it asks itself about a photograph and ends.

`python examples/serve_with_onnxruntime.py 8000` stays: `curl --data-binary @photo.jpg http://127.0.0.1:8000`
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnxruntime

import internimage.export
from internimage.data import ImageReadError, read_image, sample_photo, to_tensor

MOST_BYTES = 10 * 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    classifier: internimage.Classifier
    session: onnxruntime.InferenceSession

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MOST_BYTES:
            return self.answer(413, {"error": f"send 1 to {MOST_BYTES} bytes"})
        try:
            image = to_tensor(read_image(self.rfile.read(length)), self.classifier.preprocess)
        except ImageReadError as error:
            return self.answer(400, {"error": str(error)})
        scores = self.session.run(None, {"image": image[None].numpy()})[0][0]
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        best = np.argsort(-shares)[:3]
        return self.answer(200, {self.classifier.labels[i]: round(float(shares[i]), 3) for i in best})

    def answer(self, status: int, content: dict[str, object]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


if __name__ == "__main__":
    Handler.classifier = internimage.Classifier(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = internimage.export.export_onnx(Handler.classifier.model, Path(folder) / "model.onnx")
        Handler.session = onnxruntime.InferenceSession(file)
    # The machine itself alone can ask.
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    print("listening on", address := f"http://127.0.0.1:{server.server_port}", flush=True)
    if len(sys.argv) > 1:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(urlopen(address, data=sample_photo().read_bytes()).read().decode())
