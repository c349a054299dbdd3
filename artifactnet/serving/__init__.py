"""A model behind HTTP: ``artifactnet serve``.

`batcher` joins images of many requests into batches, `uploads`, `multipart` and `guard` take them
from clients that are not trusted, `app` has the endpoints and `server` runs them.
"""
