"""Sets of images that models are tested on: public layouts, and what of them was trained on."""
