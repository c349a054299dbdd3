"""FakeXplainer: what people prefer, and how good annotators are, from files of JSON lines."""
