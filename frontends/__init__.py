"""How programs come in: model files (onnx/) and, built in Python, networks and their training."""
