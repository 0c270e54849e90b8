"""The templates of the reports."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str) -> Template:
    """One of `templates/`, which escapes all that is put in, and fails for what is missing."""
    environment = Environment(
        loader=PackageLoader("tritonkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
