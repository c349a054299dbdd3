"""Vision-language models (extra ``mllm``).

Common to all of them: `base` (loading, adapters), `processing` (chat tokens), `sharding`, and
`text` (chains of thought). Each model has its own package, e.g. `heie`.
"""
