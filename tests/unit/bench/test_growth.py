"""What is found in a soak."""

from tritonkit.bench.growth import findings
from tritonkit.bench.progress import SoakEnd, SoakLevel, SoakOf

OF = SoakOf("ort_baseline", 100.0, 60.0)
END = SoakEnd(OF, 3600.0)


def levels(rss, resumed=0, at_s=0.0, of=OF):
    """A level each 60 s, with its memory."""
    return [
        SoakLevel(of, at_s + 60.0 * i, 100.0, 5.0, value, 0, 0, resumed)
        for i, value in enumerate(rss)
    ]


GROWS = [2**30 + 2**25 * i for i in range(30)]
FLAT = [2**30 + 2**20 * (i * 7 % 5) for i in range(30)]


def test_growth():
    """Memory that grows all through is found, memory that does not is not."""
    (found,) = findings(levels(GROWS), END)
    assert found.series == "rss_bytes" and found.text.endswith("over the soak")
    assert list(findings(levels(FLAT), END)) == []


def test_growth_after_an_interruption():
    """Memory that grows with each server is found, though each began afresh."""
    afresh = levels(GROWS) + levels(GROWS, 1, 1800.0)
    interrupted, *found = findings(afresh, END)
    assert "fresh server at minute 30" in interrupted.text
    assert [x.text.split(" over ")[1] for x in found] == ["minutes 0 to 29", "minutes 30 to 59"]


def test_a_step_between_servers_is_no_growth():
    """A fresh server that takes more memory than the one before shows no trend."""
    more = [value + 2**29 for value in FLAT]
    (found,) = findings(levels(FLAT) + levels(more, 1, 1800.0), END)
    assert found.series == "server"


def test_too_short_to_tell():
    """Where no server had enough levels for a trend, that is said, and not that there is none."""
    (found,) = findings(levels(GROWS[:19]), END)
    assert "19 levels at most" in found.text and "not known" in found.text


def test_nothing_measured():
    """A server that was lost before its first level is a finding too."""
    end = SoakEnd(OF, 0.0, "the server died after 0 minutes")
    assert next(found.text for found in findings([], end)) == end.because
