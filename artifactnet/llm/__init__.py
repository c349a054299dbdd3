"""OpenAI-compatible endpoints: client, answer log, and the LLM judge."""
