"""The full HEIE: a multimodal language model that explains, marks and scores (extra ``mllm``)."""
