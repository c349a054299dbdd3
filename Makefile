.PHONY: install format check test ci clean

install:
	pip install -e '.[test]'

format:
	ruff check --fix .
	ruff format .

check:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest

ci:
	.ci/run

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
