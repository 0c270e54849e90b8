"""The examples in the docstrings run, and the two clients are twins."""

import doctest
import inspect
import re

import numpy as np
import pytest

import tritonkit.client.async_client
import tritonkit.client.client
from tritonkit import AsyncClient, Client
from tritonkit.client.fake import FakeModel, FakeTransport


def countdown(n: np.ndarray):
    """Yields n - 1, n - 2, …, 0."""
    for left in range(int(n.item()) - 1, -1, -1):
        yield {"n": np.array([left], np.int64)}


MODELS = {
    "ranker": FakeModel(
        ["x:FP32[-1,2]"], ["score:FP32[-1,1]"], 8, lambda x: {"score": x.sum(1, keepdims=True)}
    ),
    "countdown": FakeModel(["n:INT64[1]"], ["n:INT64[1]"], 0, countdown),
}


def verbs(client: type) -> dict[str, object]:
    """Its public methods."""
    return {
        name: method
        for name, method in vars(client).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


@pytest.mark.parametrize("module", [tritonkit.client.client, tritonkit.client.async_client])
def test_the_examples_do_what_they_show(module):
    """In the order of the methods, with one client."""
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    found = sorted(finder.find(module), key=lambda test: test.lineno or 0)
    client = Client(transport=FakeTransport(MODELS))
    for example in found:
        example.globs["client"] = client
        runner.run(example)
    assert runner.tries > 0
    assert runner.failures == 0


@pytest.mark.parametrize("name", verbs(Client))
def test_each_verb_has_an_example(name):
    """In its docstring."""
    assert ">>> " in (getattr(Client, name).__doc__ or "")


def test_the_twins_have_the_same_verbs():
    """asyncio has tasks in place of `submit`."""
    assert set(verbs(Client)) - set(verbs(AsyncClient)) == {"submit"}
    assert set(verbs(AsyncClient)) <= set(verbs(Client))


@pytest.mark.parametrize("name", verbs(AsyncClient))
def test_the_twins_take_the_same(name):
    """The same parameters, with the same defaults."""

    def parameters(client: type) -> list[str]:
        signature = inspect.signature(getattr(client, name))
        return [
            re.sub(r" \| AsyncIterable\[Any\]", "", str(p)) for p in signature.parameters.values()
        ]

    assert parameters(AsyncClient) == parameters(Client)
