"""Sources of images, one file per format, and what turns them into batches."""
