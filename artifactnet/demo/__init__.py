"""A page for the browser: drop an image, see the verdict and where the model looks."""
