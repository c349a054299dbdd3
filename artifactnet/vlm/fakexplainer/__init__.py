"""FakeXplainer: verdict, boxes, captions and tags from a vision-language model."""
