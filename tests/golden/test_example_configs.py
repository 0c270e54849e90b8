"""The committed configs of the example models are what the kit writes."""

from pathlib import Path

import pytest

from tritonkit.examples import EXAMPLES
from tritonkit.repository import pbtxt
from tritonkit.repository.layout import CONFIG, UNBATCHED, model_names, read_config

COMMITTED = Path(__file__).parents[2] / "model_repository"


def test_all_are_committed():
    """Every example has a committed config, and there are no others."""
    assert model_names(COMMITTED) == sorted(EXAMPLES)


@pytest.mark.parametrize("file", [CONFIG, UNBATCHED])
@pytest.mark.parametrize("name", EXAMPLES)
def test_config(packaged_examples, name, file):
    """A committed config is, letter for letter, what exporting and packaging write."""
    committed = (COMMITTED / name / file).read_text()
    assert committed == (packaged_examples.repository / name / file).read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_stable(name):
    """A committed config that is read and written again has the same text."""
    config = read_config(COMMITTED, name)
    assert pbtxt.encode(config) == config.base
