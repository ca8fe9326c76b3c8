"""The page in headless Chromium: it renders, its script works, and nothing leaves it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Browser:
    """Headless Chromium with a profile of its own; each call is one visit."""

    def __init__(self, executable: str, directory: Path) -> None:
        self.directory = directory
        self._command = [
            executable, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--hide-scrollbars", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000",
            f"--user-data-dir={directory / 'profile'}",
        ]  # fmt: skip

    def visit(self, page: Path, *options: str) -> tuple[str, list[str]]:
        """The document after its scripts ran, and what was written to the console."""
        done = subprocess.run(
            [*self._command, *options, "--dump-dom", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            encoding="utf-8",
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def after(self, page: Path, script: str) -> str:
        """What ``script``, the body of a function, returns on the page, as text. The visit must leave the console empty."""
        changed = self.directory / "changed.html"
        probe = f"<script>document.documentElement.dataset.probe = String((() => {{ {script} }})());</script>"
        changed.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{probe}</body>"), encoding="utf-8")
        document, console = self.visit(changed)
        assert console == []
        found = re.search(r'<html[^>]* data-probe="([^"]*)"', document)
        assert found is not None, "the probe did not run"
        return found[1]

    def screenshot(self, page: Path, width: int, *options: str) -> bytes:
        target = self.directory / "shot.png"
        size = f"--window-size={width},900"
        subprocess.run(
            [*self._command, *options, size, f"--screenshot={target}", page.as_uri()], capture_output=True, timeout=120, check=True
        )
        return target.read_bytes()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    if CHROMIUM is None:
        pytest.skip("needs Chromium to look at the page, and there is no chromium on PATH (Debian: apt-get install chromium)")
    return Browser(CHROMIUM, tmp_path_factory.mktemp("browser"))


def test_the_page_renders_its_script_runs_and_the_console_stays_empty(browser: Browser, built_page: Path) -> None:
    document, console = browser.visit(built_page)
    assert console == []
    assert 'data-ready="true"' in document
    assert "3 of 6 tested implementations are drop-ins" in document


def test_a_fault_in_the_script_would_be_seen(browser: Browser, built_page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(built_page.read_text(encoding="utf-8").replace('id="cell-dialog"', 'id="lost"'), encoding="utf-8")
    document, console = browser.visit(broken)
    assert 'data-ready="true"' not in document
    assert any("TypeError" in line for line in console)


def test_no_request_leaves_the_page(browser: Browser, built_page: Path) -> None:
    assert (
        browser.after(built_page, "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == "0"
    )


def test_searching_the_matrix_leaves_the_rows_that_match(browser: Browser, built_page: Path) -> None:
    script = """
        const search = document.querySelector('[data-for=matrix] input');
        search.value = 'packed.property_2'; search.dispatchEvent(new Event('input'));
        return [...document.querySelectorAll('#matrix tbody tr:not(.topic)')].filter(row => row.offsetHeight).map(row => row.id)
            + ' ' + document.querySelector('[data-for=matrix] output').textContent;"""
    assert browser.after(built_page, script) == "c-packed.property_2 1 of 49 rows"


def test_the_contracts_that_someone_breaks_can_be_singled_out(browser: Browser, built_page: Path) -> None:
    script = """
        const menu = document.querySelector('[data-for=matrix] select');
        menu.value = 'breaks'; menu.dispatchEvent(new Event('input'));
        return [...document.querySelectorAll('#matrix tbody tr:not(.topic)')].filter(row => row.offsetHeight).length;"""
    assert browser.after(built_page, script) == "28"


def test_a_failing_cell_opens_to_its_message_and_closes_by_keyboard(browser: Browser, built_page: Path) -> None:
    script = """
        const cell = document.querySelector('#c-values\\\\.property_1 a.cell');
        cell.focus(); cell.click();
        const dialog = document.querySelector('dialog');
        const text = dialog.textContent;
        const seen = [dialog.open, text.includes('values.property_1'), text.includes('37 of 480 elements do not')];
        seen.push(document.activeElement.textContent);
        dialog.querySelector('button').click();
        return [...seen, dialog.open, document.activeElement === cell];"""
    assert browser.after(built_page, script) == "true,true,true,Close,false,true"


def test_a_passing_cell_opens_to_its_counts(browser: Browser, built_page: Path) -> None:
    script = """
        document.querySelector('#c-values\\\\.property_1 button.cell').click();
        return /4 passed of 4 cases; worst error [0-9.]+×/.test(document.querySelector('dialog').textContent);"""
    assert browser.after(built_page, script) == "true"


def test_the_table_of_cells_sorts_by_number_both_ways_with_empty_ones_last(browser: Browser, built_page: Path) -> None:
    script = """
        const button = [...document.querySelectorAll('#cells th button')].find(b => b.textContent === 'tokens/s');
        const column = () => [...document.querySelectorAll('#cells tbody tr')].map(row => row.children[7].dataset.v);
        const sorted = (values, sign) => values.every((v, i) => !i || sign * (Number(v) - Number(values[i - 1])) >= 0);
        button.click(); const up = column();
        button.click(); const down = column();
        const full = values => values.filter(v => v !== '');
        const last = [up.at(-1) === '', down.at(-1) === '', button.parentNode.getAttribute('aria-sort')];
        return [sorted(full(up), 1), sorted(full(down), -1), ...last];"""
    assert browser.after(built_page, script) == "true,true,true,true,descending"


def test_the_table_of_cells_filters_by_a_menu_of_what_is_in_it(browser: Browser, built_page: Path) -> None:
    script = """
        const menu = document.querySelector('[data-for=cells] select[aria-label="Filter by outcome"]');
        menu.value = 'out of memory'; menu.dispatchEvent(new Event('input'));
        return document.querySelector('[data-for=cells] output').textContent;"""
    assert browser.after(built_page, script) == "3 of 396 rows"


def test_the_table_of_costs_filters_by_workloads_without_their_notes_and_sorts_words_after_numbers(
    browser: Browser, built_page: Path
) -> None:
    script = """
        const columns = [...document.querySelectorAll('#costs thead th')].map(header => header.textContent.trim());
        const menu = document.querySelector('[data-for=costs] select[aria-label="Filter by pass"]');
        menu.value = 'LSTM training'; menu.dispatchEvent(new Event('input'));
        const memory = columns.indexOf('peak memory');
        document.querySelector(`#costs th:nth-child(${memory + 1}) button`).click();
        const rows = [...document.querySelectorAll('#costs tbody tr')].filter(row => row.offsetHeight);
        return [rows.length, document.querySelector('[data-for=costs] select[aria-label="Filter by workload"]'),
            rows.at(-1).children[memory].textContent.includes('not measured'), rows[0].children[memory].textContent.includes('at most')];"""
    assert browser.after(built_page, script) == "6,,true,false"


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_nothing_sticks_out_sideways(width: int, browser: Browser, built_page: Path) -> None:
    changed = browser.directory / f"narrow-{width}.html"
    frame = f'<iframe src="{built_page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
    measure = "const d = frames[0].document.documentElement; document.title = `${d.scrollWidth}/${d.clientWidth}`;"
    probe = f"<script>onload = () => {{ {measure} }};</script>"
    changed.write_text(f"<!DOCTYPE html>{frame}{probe}", encoding="utf-8")
    document, _ = browser.visit(changed, "--allow-file-access-from-files", "--window-size=1600,1000")
    found = re.search(r"<title>(\d+)/(\d+)</title>", document)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= width


def test_the_page_follows_the_dark_scheme(browser: Browser, built_page: Path) -> None:
    light, dark = browser.screenshot(built_page, 800), browser.screenshot(built_page, 800, "--blink-settings=preferredColorScheme=0")
    assert light[:4] == dark[:4] == b"\x89PNG"
    assert light != dark
