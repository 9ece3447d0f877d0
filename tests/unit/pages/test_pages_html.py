"""Pages escape whatever is not markup, load nothing, and plots keep their extremes."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf._pages.html import Html, listed, markup, page, table, tag
from eventperf._pages.svg import bars, lines, nice, peaks, standalone

HOSTILE = "\"><script>alert(1)</script>&'\x00\u202e"


class Read(HTMLParser):
    """What a browser would take for elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [value for _, value in attrs]

    def handle_data(self, data):
        self.text += data


def read(text: str) -> Read:
    parser = Read()
    parser.feed(text)
    parser.close()
    return parser


STEERS = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


@given(st.text(), st.text())
def test_text_and_attributes_come_back_as_they_went_in(text, value):
    found = read(tag("p", text, title=value))
    assert found.tags == ["p"]
    assert found.text == re.sub(STEERS, lambda c: c[0].encode("unicode_escape").decode(), text)
    assert found.attributes == [value]


@pytest.mark.parametrize("steers", ["\u202e", "\u2066", "\x1b", "\x85", "\ud800"])
def test_what_turns_or_hides_the_words_around_it_is_written_out(steers):
    assert read(tag("p", f"pay {steers}evil")).text == f"pay {steers.encode('unicode_escape').decode()}evil"
    assert read(tag("p", "\tfine\n \u00e9 \u05d0\u05d1 \U0001f469\u200d\U0001f680")).text == (
        "\tfine\n \u00e9 \u05d0\u05d1 \U0001f469\u200d\U0001f680"
    )


@pytest.mark.parametrize(
    "made",
    [
        markup(HOSTILE),
        listed([HOSTILE]),
        table([HOSTILE], [[HOSTILE]]),
        bars([(HOSTILE, [1.0])], [HOSTILE], title=HOSTILE, show=lambda _: HOSTILE),
        lines([(HOSTILE, [(0, 1), (1, 2)])], x=HOSTILE, y=HOSTILE),
        Html(page(HOSTILE, HOSTILE)),
    ],
)
def test_no_text_becomes_an_element(made):
    assert "script" not in read(made).tags


def test_markup_that_is_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "<")) == "<p><b>&lt;</b></p>"


def test_a_page_allows_nothing_from_outside_and_no_script():
    assert "default-src 'none'; style-src 'unsafe-inline'" in read(page("t")).attributes


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=500), st.integers(1, 60))
def test_thinning_out_keeps_the_peak_and_the_bound(values, most):
    kept = peaks(values, most)
    assert max(kept) == max(values)
    assert len(kept) <= most


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e12)), max_size=40), st.booleans(), st.integers(0, 1)
)
def test_any_series_is_a_well_formed_picture(points, log, areas):
    made = lines([("a", points), ("b", points)], x="s", y="ms", log=log, areas=areas)
    if made.startswith("<svg"):
        assert ElementTree.fromstring(standalone(made)).tag.endswith("svg")
        assert "nan" not in made
        assert "inf" not in made


@given(st.lists(st.tuples(st.text(max_size=20), st.floats(0, 1e15)), max_size=10), st.booleans())
def test_any_bars_are_drawn_within_the_picture(rows, log):
    made = bars([(label, [value, value / 2]) for label, value in rows], ("a", "b"), title="t", log=log)
    assert made.count("<rect") == 2 * len(rows) + 2


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_few_and_inside(low, span, most):
    ticks = nice(low, low + span, most)
    assert len(ticks) <= most + 1
    assert all(low - 1e-6 * span <= t <= low + span * (1 + 1e-6) for t in ticks)
