"""Teachers, their cached pseudo-labels, and training students on them."""
