"""The error of an unknown model says what the server has, and never gets worse by that."""

import pytest

from tritonkit.cli.known import naming_models
from tritonkit.errors import NotFoundError, UnavailableError, request_error


class Having:
    """A client whose server has these; or, given an error, one that fails with it."""

    def __init__(self, models):
        self._models = models

    def models(self):
        if isinstance(self._models, Exception):
            raise self._models
        return self._models


def model(name, state="READY", version="1"):
    return {"name": name, "version": version, "state": state, "reason": ""}


def said(models):
    with pytest.raises(NotFoundError) as caught, naming_models(Having(models)):
        raise request_error("not_found", "no model 'q'")
    return str(caught.value)


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ([model("b"), model("a")], "a, b"),
        ([model("a", "UNAVAILABLE"), model("b")], "a (not ready), b"),
        ([model("a", "UNAVAILABLE"), model("a", version="2")], "a"),
        ([], "no models"),
        ([model("a\n\x1b[31m")], "a\ufffd\ufffd[31m"),
        ([model(f"m{i:02}") for i in range(22)], f"{', '.join(f'm{i:02}' for i in range(20))}"),
    ],
)
def test_names(models, names):
    """They are sorted, each once, with those that cannot be called marked; of many the first."""
    more = " and 2 more" if len(models) > 20 else ""
    assert said(models) == f"no model 'q'; the server has {names}{more}"


@pytest.mark.parametrize(
    "models", [request_error("unsupported", "no index"), [{}], [3], None, [{"name": "a"}]]
)
def test_no_index(models):
    """Where the server does not tell, the error is as it was."""
    assert said(models) == "no model 'q'"


def test_other_errors():
    """Another error is left alone."""
    with pytest.raises(UnavailableError, match=r"^away$"), naming_models(Having([model("a")])):
        raise request_error("unavailable", "away")
