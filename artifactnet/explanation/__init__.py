"""Pictures and figures of where a model looks."""
