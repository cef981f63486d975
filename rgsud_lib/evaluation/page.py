"""Reports in one style: page.html has looks and script, parts.html macros; a rendered page is one file, offline."""

from __future__ import annotations

from typing import Any


def render_page(package: str, template: str = "report.html", **content: Any) -> str:
    """Fill the template of `package`, which extends page.html; every value is escaped, a missing one is an error."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(name, ".") for name in (package, "rgsud_lib.evaluation")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**content)
