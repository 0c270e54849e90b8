"""Distributions of sizes: read as they are written, and kept to in what is drawn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.errors import InputError
from tritonkit.load.shares import Shares, parse_shares

parts = st.lists(
    st.tuples(st.integers(1, 500), st.integers(0, 200), st.floats(0.01, 9)), min_size=1, max_size=5
).map(lambda found: ",".join(f"{low}-{low + more}:{share:.3f}" for low, more, share in found))


def draw(text: str, count: int, seed: int = 0) -> list[int]:
    """`count` sizes of a distribution."""
    return parse_shares(text, "--rows").draw(count, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", ((8, 8, 1.0),)),
        ("1:0.8,8:0.2", ((1, 1, 0.8), (8, 8, 0.2))),
        ("1:8,8:2", ((1, 1, 0.8), (8, 8, 0.2))),
        ("1,2", ((1, 1, 0.5), (2, 2, 0.5))),
        ("16-128", ((16, 128, 1.0),)),
        ("16-128:.25,512:.75", ((16, 128, 0.25), (512, 512, 0.75))),
    ],
)
def test_parsed(text, expected):
    """Sizes and ranges are read, and their shares made to add up to 1."""
    assert parse_shares(text, "--rows") == Shares(expected)


@pytest.mark.parametrize(
    "text", ["", "a", "1:", ":1", "1:0.5,", "-1", "1.5", "1:nan", "1:1e3", "1 ", "1\n2", "9" * 10]
)
def test_no_distribution(text):
    """Anything else is refused in one line, by the option's name."""
    with pytest.raises(InputError, match=r"^--rows: .* is no distribution of sizes; give") as error:
        parse_shares(text, "--rows")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["0", "1,0:3", "5-4", "1:0", "1:0.0,2:1"])
def test_sizes_that_cannot_be(text):
    """A size or a share of 0, and a range that descends, are refused."""
    with pytest.raises(InputError, match=r"^--rows: .*(cannot be|and others none)"):
        parse_shares(text, "--rows")


def test_shares_for_some():
    """Whoever gives one size a share gives it to all."""
    with pytest.raises(InputError, match=r"'1,8:0\.2' gives some sizes a share and others none"):
        parse_shares("1,8:0.2", "--rows")


@given(parts, st.integers(1, 300), st.integers(0, 9))
def test_drawn_as_asked(text, count, seed):
    """Of each part of a distribution there are as many as its share says, give or take one."""
    shares = parse_shares(text, "--rows")
    drawn = shares.draw(count, np.random.default_rng(seed))
    assert len(drawn) == count
    assert all(any(low <= size <= high for low, high, _ in shares.parts) for size in drawn)
    for low, high, _ in shares.parts:
        # Parts may overlap, so what lies in a part's range is at least what the part alone gives.
        inside = sum(share for a, b, share in shares.parts if low <= a and b <= high)
        touching = sum(share for a, b, share in shares.parts if a <= high and low <= b)
        found, slack = sum(low <= size <= high for size in drawn), len(shares.parts)
        assert inside * count - slack <= found <= touching * count + slack


def test_shares_are_kept_exactly():
    """A distribution is not left to chance: 80 and 20 of a hundred, whatever the seed."""
    for seed in range(20):
        assert Counter(draw("1:0.8,8:0.2", 100, seed)) == {1: 80, 8: 20}


def test_ranges_are_uniform():
    """Every size of a range is drawn equally often."""
    assert set(Counter(draw("16-115", 1000)).values()) == {10}


def test_order_is_random():
    """The sizes do not come in blocks, and another seed mixes them otherwise."""
    first, again, other = (draw("1,8", 100, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) != first


@given(parts)
def test_enough(text):
    """With as many draws as are called enough no part is left out."""
    shares = parse_shares(text, "--rows")
    assert shares.left_out(shares.draw(shares.enough, np.random.default_rng(0))) == []


def test_left_out():
    """Parts that do not occur are named."""
    shares = parse_shares("1,8,16-32,40", "--rows")
    assert shares.left_out([1, 20]) == ["8", "40"]
