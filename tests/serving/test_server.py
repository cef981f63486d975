"""What `rgsud serve` refuses before it serves, and where its settings come from."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rgsud_lib.config import ServingConfig, serving_config
from rgsud_lib.config.serving import PREFIX
from rgsud_lib.errors import BundleError, ConfigError, NodeError
from rgsud_lib.serving import server
from rgsud_pipelines.cli import app

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


def test_settings_on_the_command_line_come_before_those_of_the_environment() -> None:
    environment = {"RGSUD_SERVE_QUEUE": "3", "RGSUD_SERVE_MIRROR": "true", "RGSUD_SERVE_TILE": "", "OTHER": "x"}
    settings = serving_config(["queue=4"], environment)
    assert (settings.queue, settings.mirror, settings.tile) == (4, True, ServingConfig().tile)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("max_pixel=3", "--set 'max_pixel=3': expected FIELD=VALUE with one of name, version,"),
        ("queue", "expected FIELD=VALUE"),
        ("queue=0", "queue='0': Input should be greater than or equal to 1; change --set queue or RGSUD_SERVE_QUEUE"),
        ("tile=x", "tile='x': "),
        ("overlap=256", "overlap=256 is too large for tile=512"),
        ("name=a/b", "name='a/b': "),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        serving_config([given], {})


def test_every_setting_is_documented_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCUMENT.read_text(), flags=re.M))
    for name, field in ServingConfig.model_fields.items():
        assert rows[name] == f"{field.default or '-'} | {field.description}", f"{PREFIX}{name.upper()}"


def test_a_taken_port_and_a_missing_model_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NodeError, match=rf"cannot listen at 127\.0\.0\.1:{port} \(Address already in use\)"):
            server._listen("127.0.0.1", port)
    result = CliRunner().invoke(app, ["serve", "--model", str(tmp_path)])
    assert isinstance(result.exception, BundleError) and "no model at" in str(result.exception)
