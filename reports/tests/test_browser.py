"""The page in headless Chromium: it renders, its script works by mouse and by keyboard, it prints, and nothing leaves it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reports import load, page
from reports.tests import specimen

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium to drive Chromium: pip install selenium")
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DRIVER = shutil.which("chromedriver")

SHOWN = "[...document.querySelectorAll('#matrix tbody tr:not(.topic)')].filter(row => row.offsetHeight)"


class Browser:
    """Headless Chromium with a profile of its own, one for all tests of this file; every visit begins anew."""

    def __init__(self, chromium: str, driver: str, directory: Path) -> None:
        self.downloads = directory / "downloads"
        self.downloads.mkdir()
        options = selenium.ChromeOptions()
        options.binary_location = chromium
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                         "--hide-scrollbars", f"--user-data-dir={directory / 'profile'}"):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Any = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def visit(self, path: Path, width: int = 1300, **media: str) -> list[str]:
        """Opens the page, in the ``media`` features asked for; returns what was written to the console."""
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items() if name != "media"]
        self.command("Emulation.setEmulatedMedia", media=media.get("media", ""), features=features)
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.driver.get("about:blank")
        self.console(), self.driver.get_log("performance")
        self.driver.get(path.as_uri())
        return self.console()

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the visit began."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def run(self, script: str) -> Any:
        """What ``script``, the body of a function, returns on the page."""
        return self.driver.execute_script(script)

    def settle(self) -> None:
        """Waits for two frames to be drawn: what was scrolled tells the page so with the first."""
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));")

    def press(self, *keys: str) -> None:
        """Keys of the keyboard, one after the other, wherever the focus is."""
        for key in keys:
            selenium.ActionChains(self.driver).send_keys(key).perform()

    def clipboard(self) -> str:
        return str(self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0], e => arguments[0](String(e)))"))

    def saved(self, name: str) -> str:
        """The text of a download, once it is there."""
        for _ in range(200):
            if (self.downloads / name).exists():
                return (self.downloads / name).read_text(encoding="utf-8")
            time.sleep(0.05)
        raise AssertionError(f"{name} was not saved")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver on PATH to look at the page (Debian: apt-get install chromium chromium-driver)")
    browser = Browser(CHROMIUM, DRIVER, tmp_path_factory.mktemp("browser"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(started: Browser, built_page: Path) -> Iterator[Browser]:
    """On the specimen's page, of which the console must stay empty."""
    assert started.visit(built_page) == []
    yield started
    assert started.console() == []


def test_the_page_renders_and_its_script_runs(browser: Browser) -> None:
    assert browser.run("return [document.documentElement.dataset.ready, document.querySelector('h1').textContent]") == [
        "true",
        "3 of 6 tested implementations are drop-ins",
    ]


def test_a_fault_in_the_script_would_be_seen(started: Browser, built_page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(built_page.read_text(encoding="utf-8").replace('id="cell-dialog"', 'id="lost"'), encoding="utf-8")
    assert any("TypeError" in line for line in started.visit(broken))
    assert started.run("return document.documentElement.dataset.ready") is None


def test_no_request_leaves_the_page(browser: Browser, built_page: Path) -> None:
    browser.run("document.querySelector('#c-values\\\\.property_1 a.cell').click()")
    asked = browser.requests()
    assert built_page.as_uri() in asked, "the log sees requests"
    assert {url for url in asked if not url.startswith("data:")} == {built_page.as_uri()}


def test_searching_the_matrix_leaves_the_rows_that_match(browser: Browser) -> None:
    browser.run("document.querySelector('[data-for=matrix] input').focus()")
    browser.press(*"packed.property_2")
    assert browser.run(f"return {SHOWN}.map(row => row.id)") == ["c-packed.property_2"]
    assert browser.run("return document.querySelector('[data-for=matrix] output').textContent") == "1 of 49 rows"


@pytest.mark.parametrize(("state", "rows"), [("breaks", 28), ("crashed", 1), ("unsupported", 1), ("SHOULD", 13), ("", 49)])
def test_contracts_can_be_singled_out_by_what_became_of_them(state: str, rows: int, browser: Browser) -> None:
    script = (
        f"const menu = document.querySelector('[data-for=matrix] select'); menu.value = '{state}'; menu.dispatchEvent(new Event('input'));"
    )
    assert browser.run(f"{script} return {SHOWN}.length") == rows


def test_a_failing_cell_opens_by_keyboard_to_its_message_error_and_mutants_and_closes_again(browser: Browser) -> None:
    browser.run("document.querySelector('[data-for=matrix] input').focus()")
    for _ in range(9):
        browser.press(Keys.TAB)
        if browser.run("return document.activeElement.matches('.cell')"):
            break
    columns = browser.run("return [...document.querySelectorAll('#matrix thead th')].map(header => header.textContent)")
    browser.press(*[Keys.ARROW_RIGHT] * (columns.index(specimen.HOSTILE) - 1))
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    text = browser.run("const dialog = document.querySelector('dialog'); return dialog.open ? dialog.textContent : ''")
    assert "values.property_1" in text and "37 of 480 elements do not" in text and "Shown to reject: mutant_0" in text
    assert "Error over floor: y " in text and "h_n not finite (allowed 4)" in text
    assert browser.run("return document.activeElement.textContent") == "Close"
    browser.press(Keys.ESCAPE)
    assert browser.run("return [document.querySelector('dialog').open, document.activeElement.matches('.cell')]") == [False, True]


def test_the_matrix_is_one_stop_for_the_keyboard_and_follows_the_filter(browser: Browser) -> None:
    stops = "return [...document.querySelectorAll('#matrix .cell')].filter(cell => cell.tabIndex === 0).map(cell => cell.closest('tr').id)"
    assert browser.run(stops) == ["c-values.property_1"]
    script = """
        const search = document.querySelector('[data-for=matrix] input');
        search.value = 'errors';
        search.dispatchEvent(new Event('input', {bubbles: true}));"""
    assert browser.run(f"{script} {stops}") == ["c-errors.property_1"]


def test_a_passing_cell_opens_to_its_counts(browser: Browser) -> None:
    browser.run("document.querySelector('#c-values\\\\.property_1 button.cell').click()")
    assert browser.run("return /4 passed of 4 cases; worst error [0-9.]+×/.test(document.querySelector('dialog').textContent)")


def test_a_link_to_a_contract_that_the_filter_hides_shows_it(browser: Browser) -> None:
    browser.run("const s = document.querySelector('[data-for=matrix] input'); s.value = 'packed'; s.dispatchEvent(new Event('input'));")
    assert browser.run("return document.getElementById('c-values.property_2').offsetHeight") == 0
    browser.run("document.querySelector('.verdicts a[href=\"#c-values.property_2\"]').click()")
    time.sleep(0.2)
    assert browser.run("return document.getElementById('c-values.property_2').offsetHeight") > 0


def test_the_table_of_cells_sorts_by_number_both_ways_with_empty_ones_last(browser: Browser) -> None:
    script = """
        const button = [...document.querySelectorAll('#cells th button')].find(b => b.textContent === 'tokens/s');
        const column = () => [...document.querySelectorAll('#cells tbody tr')].map(row => row.children[7].dataset.v);
        const sorted = (values, sign) => values.every((v, i) => !i || sign * (Number(v) - Number(values[i - 1])) >= 0);
        button.click(); const up = column();
        button.click(); const down = column();
        const full = values => values.filter(v => v !== '');
        const last = [up.at(-1) === '', down.at(-1) === '', button.parentNode.getAttribute('aria-sort')];
        return [sorted(full(up), 1), sorted(full(down), -1), ...last];"""
    assert browser.run(script) == [True, True, True, True, "descending"]


def test_the_table_of_cells_filters_by_a_menu_of_what_is_in_it(browser: Browser) -> None:
    script = """
        const menu = document.querySelector('[data-for=cells] select[aria-label="Filter by outcome"]');
        menu.value = 'out of memory'; menu.dispatchEvent(new Event('input'));
        return document.querySelector('[data-for=cells] output').textContent;"""
    assert browser.run(script) == "3 of 396 rows"


def test_the_table_of_costs_filters_by_workloads_without_their_notes_and_sorts_words_after_numbers(browser: Browser) -> None:
    script = """
        const columns = [...document.querySelectorAll('#costs thead th')].map(header => header.textContent.trim());
        const menu = document.querySelector('[data-for=costs] select[aria-label="Filter by pass"]');
        menu.value = 'LSTM training'; menu.dispatchEvent(new Event('input'));
        const memory = columns.indexOf('peak memory');
        document.querySelector(`#costs th:nth-child(${memory + 1}) button`).click();
        const rows = [...document.querySelectorAll('#costs tbody tr')].filter(row => row.offsetHeight);
        return [rows.length, document.querySelector('[data-for=costs] select[aria-label="Filter by workload"]'),
            rows.at(-1).children[memory].textContent.includes('not measured'), rows[0].children[memory].textContent.includes('at most')];"""
    assert browser.run(script) == [6, None, True, False]


def test_what_is_shown_of_a_table_is_copied_in_its_order(browser: Browser) -> None:
    browser.run("""
        const menu = document.querySelector('[data-for=cells] select[aria-label="Filter by outcome"]');
        menu.value = 'out of memory'; menu.dispatchEvent(new Event('input'));
        [...document.querySelectorAll('[data-for=cells] button')].find(b => b.textContent === 'Copy').click();""")
    lines = [line.split("\t") for line in browser.clipboard().splitlines()]
    assert lines[0][:6] == ["Implementation", "Recurrence", "Pass", "Device", "T", "Workload"]
    assert [line[:5] for line in lines[1:]] == [
        ["loop:textbook", mode, "training", "CPU", "1024"] for mode in ("RNN (tanh)", "GRU", "LSTM")
    ]
    assert browser.run("return [...document.querySelectorAll('[data-for=cells] output')].at(-1).textContent") == "copied 4 lines"


def test_a_table_is_saved_with_names_for_rows_that_share_one_and_quotes_where_they_are_needed(browser: Browser) -> None:
    browser.run("document.querySelector('.uses').closest('.scroll').nextElementSibling.querySelector('a').click()")
    rows = list(csv.reader(io.StringIO(browser.saved("fastest-by-use.csv"))))
    assert {len(row) for row in rows} == {5}
    assert [row[:2] for row in rows[1:4]] == [["Inference", "RNN (tanh)"], ["Inference", "GRU"], ["Inference", "LSTM"]]
    assert rows[0][0] == "CPU, B=16, I=H=128, float32, 1 thread"


def test_the_data_of_a_figure_can_be_taken_out_as_it_is(browser: Browser) -> None:
    holder = "document.querySelector('figure .csv')"
    browser.run(f"{holder}.open = true; {holder}.querySelector('a').click()")
    name, value = browser.run(f"const area = {holder}.querySelector('textarea'); return [area.dataset.name, area.value]")
    assert browser.saved(f"{name}.csv") == value
    header, *rows = csv.reader(io.StringIO(value))
    assert header[:3] == ["contract", "implementation", "outcome"] and len(rows) == 49 * 6 + 49
    browser.run(f"{holder}.querySelector('button').click()")
    assert browser.clipboard().replace("\r\n", "\n") == value


def test_values_show_at_the_mark_that_is_nearest_to_the_pointer(browser: Browser) -> None:
    plot = """
        const figures = [...document.querySelectorAll('figure')];
        const plot = figures.find(f => f.textContent.includes('Throughput over sequence length')).querySelector('.plot');"""
    browser.run(f"{plot} plot.scrollIntoView({{block: 'center', behavior: 'instant'}});")
    # The tip goes away when the page scrolls.
    browser.settle()
    place = browser.run(f"""{plot}
        // Marks come in rows, a band of intervals alone.
        const box = plot.querySelector('g[clip-path] > use + use').getBoundingClientRect();
        return [box.x + box.width / 2 + 3, box.y + box.height / 2];""")
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    hidden, text = browser.run("const tip = document.querySelector('.tip'); return [tip.hidden, tip.textContent]")
    assert not hidden and "tokens/s" in text and "T=" in text
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.run("return document.querySelector('.tip').hidden")


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_nothing_sticks_out_sideways(width: int, started: Browser, built_page: Path) -> None:
    started.visit(built_page, width)
    for unfolded in (False, True):
        started.run(f"for (const one of document.querySelectorAll('details')) one.open = {str(unfolded).lower()};")
        found, client = started.run("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
        assert found <= client <= width


def test_the_page_follows_the_scheme_and_its_text_stands_out_in_both(started: Browser, built_page: Path) -> None:
    script = """
        const style = getComputedStyle(document.documentElement), probe = document.body.appendChild(document.createElement('i'));
        const colour = name => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number); };
        return ['--paper', '--ink', '--muted', '--good', '--bad', '--severe', '--amber', '--blue', '--accent'].map(colour);"""

    def luminance(rgb: list[float]) -> float:
        parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (value / 255 for value in rgb)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    seen = []
    for scheme in ("light", "dark"):
        started.visit(built_page, prefers_color_scheme=scheme)
        paper, *inks = started.run(script)
        seen.append(luminance(paper))
        for ink in inks:
            bright, dim = sorted((luminance(paper), luminance(ink)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (scheme, ink)
        fill = "return getComputedStyle(document.querySelector('figure svg path')).fill"
        assert started.run(fill) == f"rgb({', '.join(map(str, map(int, paper)))})", "figures too"
    assert seen[0] > 0.9 and seen[1] < 0.05


def test_on_paper_what_is_folded_is_there_and_what_only_a_screen_can_use_is_not(started: Browser, tmp_path: Path) -> None:
    results = [*specimen.conformance(1), *specimen.throughput()[:132]]
    parts = [cell for cell in specimen.throughput() if cell.timed_pass == "training"]
    folded = [type(cell)(**{**vars(cell), "timed_pass": "forward"}) for cell in parts[:66]]
    path = page.write(load(specimen.write(tmp_path, results=[*results, *folded])), tmp_path / "out")
    started.visit(path, media="print")
    started.run("dispatchEvent(new Event('beforeprint'))")
    assert started.run("return document.querySelectorAll('details.fold').length") > 0
    assert started.run("return [...document.querySelectorAll('details.fold figure')].every(figure => figure.offsetHeight > 100)")
    for unused in ("nav", ".tools", ".csv", "#cells"):
        assert started.run(f"return document.querySelector('{unused}').getClientRects().length") == 0, unused
    assert "Left out on paper" in started.run("return document.body.innerText")
    started.run("dispatchEvent(new Event('afterprint'))")
    assert not started.run("return document.querySelector('details.fold').open")
    assert started.command("Page.printToPDF")["data"].startswith("JVBERi0"), "a PDF"


def test_what_changed_can_be_searched_and_filtered(started: Browser, tmp_path: Path) -> None:
    head = load(specimen.write(tmp_path, results=specimen.throughput()[:132]))
    path = page.write(head, tmp_path / "out", head)
    assert started.visit(path) == []
    script = """
        const menu = document.querySelector('[data-for=times-changed1] select[aria-label="Filter by implementation"]');
        menu.value = 'loop:hoisted'; menu.dispatchEvent(new Event('input'));
        return document.querySelector('[data-for=times-changed1] output').textContent;"""
    assert started.run(script) == "22 of 87 rows"


@pytest.mark.parametrize("width", [1300, 390])
def test_environments_side_by_side_are_the_first_thing_on_a_page_of_theirs_and_filter_by_verdict(
    width: int, started: Browser, tmp_path: Path
) -> None:
    path = page.write(load(specimen.versus_run(tmp_path)), tmp_path / "out")
    assert started.visit(path, width) == []
    assert "is slower than torch==2.11.0 in 1 of 5 comparisons" in started.run("return document.querySelector('h1').textContent")
    first = "const first = document.querySelector('main > section'); return [first.id, first.querySelector('h3').textContent]"
    assert started.run(first) == ["versus", "torch==2.13.0 <script>alert(2)</script> beside torch==2.11.0"]
    assert started.run("return document.querySelectorAll('script').length") == 1, "a name is no script"
    script = """
        const menu = document.querySelector('[data-for=versus1] select[aria-label="Filter by verdict"]');
        menu.value = 'undecided'; menu.dispatchEvent(new Event('input'));
        const rows = [...document.querySelectorAll('#versus1 tbody tr')].filter(row => row.offsetHeight);
        return [document.querySelector('[data-for=versus1] output').textContent, rows.map(row => row.cells[5].textContent)];"""
    assert started.run(script) == ["2 of 5 rows", ["6 of 8", "6 of 8"]]
    found, client = started.run("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
    assert found <= client <= width, "nothing sticks out sideways"
    assert {url for url in started.requests() if not url.startswith("data:")} == {path.as_uri()}
    assert started.console() == []
