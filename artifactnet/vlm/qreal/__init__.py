"""Q-Real's two tasks: questions about single entities, and lists of those with a problem."""
