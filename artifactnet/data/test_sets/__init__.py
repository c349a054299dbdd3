"""Sets of images that models are tested on, in public layouts."""
