"""X-AIGD: pixel-level and instance-level scores of prediction files."""
