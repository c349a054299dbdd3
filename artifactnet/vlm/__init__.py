"""Vision-language models (extra ``mllm``)."""
