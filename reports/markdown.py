"""GitHub's Markdown made of other people's texts: nothing in them is read as Markdown, as HTML, or as the name of somebody to notify."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from reports.tables import counted

T = TypeVar("T")

MOST_LETTERS = 200
"""Letters of one text in a line or in an entry of a table."""

_PLAIN = re.compile(r"[\w.:/+=,@%() …\-]*")
_LETTER = re.compile(r"[A-Za-z0-9 ]")


def one_line(text: str, most: int = MOST_LETTERS) -> str:
    """``text`` without line ends and invisible letters, cut after ``most`` letters."""
    visible = "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))
    return visible if len(visible) <= most else visible[: most - 1].rstrip() + "…"


def code(text: str, most: int = MOST_LETTERS) -> str:
    """``text`` as code within a line: there GitHub makes no links of it and notifies nobody.

    What a code span or a table would take for its own end stands as a character reference, which only HTML's ``code`` can hold.
    """
    told = one_line(text, most)
    if not told:
        return ""
    return f"`{told}`" if _PLAIN.fullmatch(told) else _marked_up(told)


def sentence(text: str) -> str:
    """A sentence of ours that has other people's names in it."""
    told = one_line(text)
    # Where nothing in it can be Markdown it stays as it is: most have only words and numbers.
    return told if not set(told) & set("\\`*_{}[]<>|#@&~$!") and "://" not in told else code(told)


def _marked_up(told: str) -> str:
    """As code in HTML, with a character reference for everything that could mean something in HTML, in Markdown or in a table."""
    return "<code>" + "".join(c if _LETTER.fullmatch(c) or not c.isascii() else f"&#{ord(c)};" for c in told) + "</code>"


def heading_code(text: str) -> str:
    """``text`` as code in the heading of :func:`folded`, which is HTML: there a code span shows its backticks."""
    return _marked_up(one_line(text))


def fenced(text: str) -> str:
    """``text`` as a block of code, with a fence that is longer than any in it."""
    kept = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text.rstrip())
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", kept)), default=0))
    return f"{fence}text\n{kept}\n{fence}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table of what is Markdown already; the columns ``right`` are aligned to the right."""
    numbers = set(right)
    rule = ["--:" if place in numbers else "---" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def folded(title: str, body: str) -> str:
    """``body`` behind a line that opens it, ``title``, which is HTML. The empty lines are what makes Markdown of it again."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def cut(lines: Sequence[T], limit: int, noun: str) -> tuple[Sequence[T], str]:
    """The first lines, and what is said of the others."""
    rest = len(lines) - limit
    return lines[:limit], f"\n\n… and {counted(rest, f'more {noun}')}." if rest > 0 else ""


def limited(head: Sequence[str], lines: Sequence[Sequence[str]], limit: int, noun: str, right: Iterable[int] = ()) -> str:
    """A table of the first lines, with what is said of the others below it; no table where it would have none."""
    shown, more = cut(lines, limit, noun)
    return (table(head, shown, right) if shown else "") + more
