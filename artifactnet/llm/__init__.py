"""OpenAI-compatible endpoints: client, answer log, and an LLM judge of explanations."""
