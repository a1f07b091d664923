# What contributors run; `just` alone lists it.
default:
    @just --list

# Run the tests; arguments go to pytest, as in `just test -k recipes`.
test *arguments:
    pytest -n 2 {{arguments}}

# Check style, types and layers.
lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# Write the generated pages anew, and check all of the docs.
docs:
    cog -r docs/hooks.md docs/components.md docs/cli.md
    pytest tests/test_docs.py

# Build the site in site/, as CI does; needs pip install -e '.[docs]'.
site:
    zensical build --strict --clean

# Measure full-size shapes on a GPU.
bench *arguments:
    python benchmarks/full_size.py {{arguments}}

# Try broken input and ended runs by the thousand: just fuzz --recipes 20000 --kills 200 --jobs 16
fuzz *arguments:
    python tools/fuzz.py {{arguments}}
