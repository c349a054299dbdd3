"""Runtimes of exported models: ONNX Runtime, OpenVINO, torch.export."""
