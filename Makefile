# Every target works on a bare checkout: python3 (3.11 or newer), make and a C compiler are enough.
#   make demo                       the tour: a small network through every stage
#   make test                       lint, then the tests; LONG=1 adds the slow ones
#   make lint                       ruff and mypy
#   make accept TOPIC=t [LINE=l]    acceptance lines with figure and verdict
# The virtual environment is made on first use and again when pyproject.toml changes.

PYTHON ?= python3
JOBS   ?= 2
EXTRAS ?= test
TOPIC  ?= spine

comma := ,
VENV  := .venv
PY    := $(VENV)/bin/python -P

# $(call stamp,a,b) is the file that says: extras a,b are installed for this pyproject.toml
stamp = $(VENV)/.installed-$(subst $(comma),-,$(1))

.PHONY: demo test lint accept venv clean

venv: $(call stamp,$(EXTRAS))

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "irc needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(subst -,$(comma),$*)]'
	@touch $@

demo: $(call stamp,test$(comma)demo)
	$(PY) -m irc.tools.demo

# Both halves always run, and the tests come last, so that their summary is the last line.
test: $(call stamp,$(EXTRAS))
	@$(PY) tools/lint.py; lint=$$?; \
	$(PY) -m pytest -n $(JOBS) --dist worksteal -ra $(if $(LONG),-m '') $(PYTEST); tests=$$?; \
	exit $$((lint | tests))

lint: $(call stamp,test)
	$(PY) tools/lint.py

# Topics that export networks need torch too.
extras-models := test,bench,oracle
extras-training := test,bench,oracle,demo,data,tensorboard,mpi
accept: $(call stamp,$(or $(extras-$(TOPIC)),test$(comma)bench))
	$(PY) -m irc.tools.accept $(TOPIC) $(LINE)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .accept .demo .cache
