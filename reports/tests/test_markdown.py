"""Other people's texts in Markdown, as GitHub's own renderer shows them."""

from __future__ import annotations

import pytest

from reports.markdown import MOST_LETTERS, code, fenced, folded, heading_code, one_line, table
from reports.tests.gfm import seen
from reports.tests.specimen import HOSTILE

NAMES = [
    "torch:onednn",
    "values.lstm_cell",
    "a|b",
    "a\\|b",
    "|",
    "`",
    "``x`y``",
    "<script>alert(1)</script>",
    "</code><img src=x onerror=alert(1)>",
    "@somebody #12 https://example.com",
    "*b* _c_ ~~d~~ [l](u) ![i](u)",
    "&amp; &#60;b&#62;",
    "$x^2$ $$y$$",
    "two\nlines | and\r\nthree",
    "- item",
    "# heading",
    "名前 ç",
    HOSTILE,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_entry_of_a_table_that_reads_as_the_name(name: str) -> None:
    page = seen(table(("name", "number"), [(code(name), "1"), (code(name), "2")], right=[1]))
    shown = " ".join(name.split())
    assert page.tables == [[["name", "number"], [shown, "1"], [shown, "2"]]]
    assert page.codes == [shown, shown], "in code, where GitHub notifies nobody and links nothing"
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td", "code"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_heading_that_folds_is_text_and_what_is_folded_is_markdown(name: str) -> None:
    page = seen(folded(f"about {heading_code(name)}", table(("a", "b"), [(code(name), "1")])))
    assert page.codes == [" ".join(name.split())] * 2 and len(page.tables) == 1
    assert page.tags == {"details", "summary", "table", "thead", "tbody", "tr", "th", "td", "code"}


@pytest.mark.parametrize("text", ["one\n```\n# two\n````\n<b>", "~~~\n</details>\n", "    x | y\n\n\tz", "```"])
def test_a_block_of_code_ends_where_the_text_does(text: str) -> None:
    page = seen(f"before\n\n{fenced(text)}\n\nafter")
    assert page.tags == {"p", "pre", "code"} and page.codes == [text.rstrip() + "\n"]


def test_what_cannot_be_seen_is_shown_as_a_replacement() -> None:
    assert one_line("a\u202eb\x00c\u200b") == "a\ufffdb\ufffdc\ufffd"
    assert "\x1b" not in fenced("\x1b[31mred") and "\r" not in fenced("a\rb")


def test_a_long_text_is_cut_and_shows_that_it_was() -> None:
    assert len(one_line("x" * 1000)) == MOST_LETTERS and one_line("x" * 1000).endswith("x…")
    assert code("x" * 1000, 10) == "`xxxxxxxxx…`"


def test_nothing_is_nothing() -> None:
    assert code("") == code(" \n ") == ""
