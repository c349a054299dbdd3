"""A report on many images that a person can read: one HTML file, the same as JSON and PNG."""
