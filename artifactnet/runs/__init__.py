"""The run folder, devices and provenance."""
