"""docs/batch-safety.md: its examples do what it says that they do."""

import re
import runpy
from contextlib import suppress
from pathlib import Path

import pytest

from tritonkit.cli import run

PAGE = Path(__file__).parents[2] / "docs" / "batch-safety.md"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+([.,]\d+)*(e[+-]?\d+)?×?|-?inf|nan")


def examples():
    """Heading → the files and the commands, each with its output, under it."""
    for section in re.split(r"^###? ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        blocks = BLOCK.findall(section)
        if blocks:
            yield pytest.param(blocks, id=section.partition("\n")[0])


def plain(text):
    """Words only: which number comes out, and where a line ends, differs between machines."""
    return " ".join(NUMBER.sub("#", text).split())


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of much
@pytest.mark.parametrize("blocks", examples())
def test_example(blocks, tmp_path, monkeypatch, capfd):
    """What is printed is what the page shows, but for the numbers."""
    monkeypatch.chdir(tmp_path)
    for kind, body in blocks:
        if kind == "python":
            Path(re.match(r"# (\S+)", body)[1]).write_text(body)
            continue
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
            program, *arguments = command.split()
            if program == "python":
                runpy.run_path(arguments[0])
                capfd.readouterr()
                continue
            assert program == "tritonkit"
            with suppress(SystemExit):
                run(arguments)
            printed = capfd.readouterr()
            shown = plain(re.sub(r"\bgain .*", "", printed.out + printed.err))
            assert shown == plain(re.sub(r"\bgain .*", "", expected))


def test_every_verdict_is_shown():
    """The page shows each verdict and each kind of finding that the check has."""
    page = PAGE.read_text(encoding="utf-8")
    kinds = ("neighbour", "batch_size", "random", "fixed_batch", "batch_axis", "no_batch_axis")
    for word in (*kinds, "time", "set", "graph", "merged", "parity", "signature"):
        assert re.search(rf"^  {word} +", page, re.MULTILINE), word
