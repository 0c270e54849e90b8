"""What is printed has the width of a terminal, and where there is none no width at all."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

LONG = "word " * 60

LINE = f"from tritonkit.cli.lines import print_line; print_line('why', {LONG.strip()!r})"
REPORT = (
    "from rich.table import Table; from rich.text import Text; from rich.console import Group\n"
    "from tritonkit.cli.screen import print_report\n"
    "table = Table.grid(padding=(0, 1, 0, 0))\n"
    "for text in ('short', 'a [b] c'): table.add_row('-', Text(text))\n"
    f"table.add_row('-', Text({LONG.strip()!r}))\n"
    "print_report(Group(Text('head'), table))"
)
PROGRESS = (
    "import sys; from rich.console import Console\n"
    "from tritonkit.cli.screen import print_progress\n"
    f"print_progress(Console(file=sys.stdout), '[b] ' + {LONG.strip()!r})"
)
# `infer` prints its answers so.
ARRAY = (
    "import numpy as np; from tritonkit.cli.answers import show\nshow({'y': np.arange(90)}, False)"
)
ALL = pytest.mark.parametrize("code", [LINE, REPORT, PROGRESS, ARRAY])


def piped(code: str) -> list[str]:
    """The lines that it prints into a pipe."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def on_a_terminal(code: str) -> list[str]:
    """The lines that it prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    said = b""
    with os.fdopen(ours, "rb") as terminal:
        while True:
            try:
                said += terminal.read1() or b""
            except OSError:  # how Linux says that nobody writes to it any more
                break
    assert process.wait(30) == 0
    return said.decode().splitlines()


@ALL
def test_wrapped_on_a_terminal(code):
    """On a terminal no line is longer than it is wide."""
    lines = on_a_terminal(code)
    assert len(lines) > 2 and max(map(len, lines)) <= 80


@ALL
def test_not_wrapped_in_a_pipe(code):
    """What goes to another program has its lines whole, without blanks at their ends."""
    lines = piped(code)
    assert max(map(len, lines)) > 250
    assert all(line == line.rstrip() for line in lines)


def test_report_in_a_pipe():
    """Nothing of a report is lost, and none of its words is markup."""
    assert piped(REPORT) == ["head", "- short", "- a [b] c", f"- {LONG.strip()}"]


def test_progress_in_a_pipe():
    """A line of progress is printed as it is."""
    assert piped(PROGRESS) == [f"[b] {LONG.strip()}"]


def test_no_line_for_no_text():
    """A label without text is not printed."""
    assert piped("from tritonkit.cli.lines import print_line; print_line('why', '')") == []


def test_closed_output():
    """Where standard output is closed nothing is printed, and nothing breaks."""
    closed = f"import sys; sys.stdout = None\n{LINE}"
    assert subprocess.run([sys.executable, "-c", closed], check=False).returncode == 0
