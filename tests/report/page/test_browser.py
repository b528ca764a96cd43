"""The page in a real browser: what a reader clicks, types and sees."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import emulate, open_browser, requests
from helpers.pages import EVIL, put_choice, put_full, put_sweep

from d2timm.report import write_page
from d2timm.report.page.serve import LivePage, PageServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a sweep of five runs, of a choice and of a run."""
    root = tmp_path_factory.mktemp("pages")
    put_sweep(root / "sweep", 5)
    put_choice(root / "choice")
    put_full(root / "run", 10.0)
    return {kind: write_page(root / kind) for kind in ("sweep", "choice", "run")}


@pytest.fixture
def show(driver: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Open a page as a new reader; afterwards nothing must have been asked for, and no error printed."""

    def open_page(kind: str, width: int = 1280, dark: bool = False) -> Any:
        emulate(driver, width, dark)
        driver.get(pages[kind].as_uri())
        return driver

    requests(driver), driver.get_log("browser")
    yield open_page
    driver.execute_script("sessionStorage.clear()")
    assert {url.partition("#")[0] for url in requests(driver)} <= {page.as_uri() for page in pages.values()}
    assert driver.get_log("browser") == []


def texts(driver: Any, selector: str) -> list[str]:
    return [found.text for found in driver.find_elements("css selector", selector)]


def click(driver: Any, selector: str, number: int = 0) -> None:
    element = driver.find_elements("css selector", selector)[number]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def names(driver: Any) -> list[str]:
    return texts(driver, "#leaderboard tbody tr:not([hidden]) th")


@pytest.mark.parametrize("kind", ["sweep", "choice", "run"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_window(kind: str, width: int, show: Any) -> None:
    driver = show(kind, width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    outside = driver.execute_script(
        "return [...document.querySelectorAll('main *, header *')]"
        ".filter((e) => !e.closest('.scroll, pre, svg') && getComputedStyle(e).position !== 'absolute'"
        " && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 100))"
    )
    assert outside == []
    assert len(texts(driver, ".plot .main-svg")) > 0


def test_columns_are_sorted_by_click_and_by_key(show: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = show("sweep")
    rising = [f"model{i}" for i in range(5)]
    assert names(driver) == rising[::-1]
    heads = texts(driver, "#leaderboard thead th")
    score = driver.find_elements("css selector", "#leaderboard thead th")[heads.index("bbox/AP")]
    button = score.find_element("css selector", "button")
    button.click()
    assert (names(driver), score.get_attribute("aria-sort")) == (rising, "ascending")
    button.send_keys(Keys.ENTER)
    assert (names(driver), score.get_attribute("aria-sort")) == (rising[::-1], "descending")
    name = driver.find_elements("css selector", "#leaderboard thead th")[heads.index("name")]
    name.find_element("css selector", "button").click()
    assert (names(driver), score.get_attribute("aria-sort")) == (rising, "none")


def test_rows_are_filtered_by_all_words(show: Any) -> None:
    driver = show("sweep")
    box = driver.find_element("css selector", "[data-filter=leaderboard]")
    box.send_keys("MODEL3")
    assert names(driver) == ["model3"]
    assert texts(driver, "#count-leaderboard") == ["1 of 5"]
    box.send_keys(" nothing")
    assert names(driver) == []
    box.clear()
    box.send_keys("backbone= done")
    assert len(names(driver)) == 5, "full names and other columns count"


def test_more_columns_on_request(show: Any) -> None:
    driver = show("sweep")
    head = next(
        e
        for e in driver.find_elements("css selector", "#leaderboard th")
        if "images/s" in e.get_attribute("textContent")
    )
    assert not head.is_displayed()
    click(driver, "[data-details=leaderboard]")
    assert head.is_displayed()


def test_point_of_the_pareto_plot_has_a_label(show: Any) -> None:
    from selenium.webdriver import ActionChains

    driver = show("sweep")
    points = driver.find_elements("css selector", "#plot-pareto .scatterlayer .point")
    assert len(points) == 5
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", points[0])
    ActionChains(driver).move_to_element(points[0]).perform()
    for _ in range(50):
        labels = texts(driver, "#plot-pareto .hoverlayer .hovertext")
        if labels:
            break
        time.sleep(0.1)
    assert "model4" in labels[0]
    assert "140.0 ms per image" in labels[0]


def test_axis_of_a_plot_can_be_chosen(show: Any) -> None:
    driver = show("sweep")
    title = "#plot-pareto .xtitle"
    assert texts(driver, title) == ["milliseconds per image"]
    click(driver, "[data-axes=pareto] input", 1)
    assert texts(driver, title) == ["parameters (millions)"]
    click(driver, "[data-axes=loss] input", 1)
    assert texts(driver, "#plot-loss .xtitle") == ["seconds of training"]


def test_plots_offer_nothing_that_sends_data(show: Any) -> None:
    driver = show("sweep")
    buttons = driver.find_elements("css selector", "#plot-pareto .modebar-btn")
    assert [button.get_attribute("data-title") for button in buttons] == [
        "Download plot as a PNG",
        "Zoom",
        "Pan",
        "Reset axes",
    ]


def test_lines_can_be_hidden(show: Any) -> None:
    driver = show("sweep")
    lines = "#plot-loss .scatterlayer .trace"
    assert len(driver.find_elements("css selector", lines)) == 5
    click(driver, "#legend-runs [data-line]", 1)
    assert len(driver.find_elements("css selector", lines)) == 4
    assert len(driver.find_elements("css selector", "#plot-score .scatterlayer .trace")) == 4
    click(driver, "#legend-runs [data-all=false]")
    assert len(driver.find_elements("css selector", lines)) == 0
    click(driver, "#legend-runs [data-all=true]")
    assert len(driver.find_elements("css selector", lines)) == 5


def set_slider(driver: Any, value: float) -> None:
    driver.execute_script(
        "const slider = document.querySelector('#threshold'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        value,
    )


def shapes(driver: Any) -> list[int]:
    return [
        len(p.find_elements("css selector", "g"))
        for p in driver.find_elements("css selector", "#panels figure")
    ]


def test_detections_follow_the_score_threshold(show: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = show("sweep")
    assert texts(driver, "#panels figcaption strong") == [
        "Ground truth",
        *(f"model{i}" for i in (4, 3, 2, 1, 0)),
    ]
    assert shapes(driver) == [1, 1, 1, 1, 1, 1]
    set_slider(driver, 0.2)
    assert shapes(driver) == [1, 2, 2, 2, 2, 2]
    set_slider(driver, 0.95)
    assert shapes(driver) == [1, 0, 0, 0, 0, 0]
    slider = driver.find_element("css selector", "#threshold")
    slider.send_keys(Keys.ARROW_LEFT)
    assert texts(driver, "#threshold-value") == ["0.90"]
    assert shapes(driver) == [1, 1, 1, 1, 1, 1]


def test_image_and_models_can_be_chosen(show: Any) -> None:
    driver = show("sweep")
    first = driver.find_element("css selector", "#panels image").get_attribute("href")
    click(driver, "#thumbs label", 1)
    assert driver.find_element("css selector", "#panels image").get_attribute("href") != first
    click(driver, "#shown-runs summary")
    click(driver, "#run-boxes input", 0)
    assert texts(driver, "#panels figcaption strong") == [
        "Ground truth",
        *(f"model{i}" for i in (3, 2, 1, 0)),
    ]


def test_configs_are_compared(show: Any) -> None:
    driver = show("sweep")
    cells = texts(driver, "#config-table tbody tr > *")
    assert cells == ["model.name", "backbone=model4", "backbone=model3", "train.seed", "14", "13"]
    click(driver, "#config-b option", 0)
    assert texts(driver, "#config-count") == ["No differences"]
    click(driver, "#config-b option", 4)
    assert texts(driver, "#config-table tbody td")[-1] == "10"


@pytest.mark.parametrize("dark", [False, True])
def test_theme_follows_the_reader(dark: bool, show: Any) -> None:
    driver = show("sweep", dark=dark)

    def colors() -> tuple[str, str]:
        body = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        axis = driver.find_element("css selector", "#plot-pareto .xtick text")
        return body, axis.value_of_css_property("fill")

    before = colors()
    brightness = sum(int(part) for part in before[0][4:-1].split(","))
    assert (brightness < 200) == dark
    click(driver, "#theme")
    assert (
        driver.find_element("css selector", "#theme").get_attribute("aria-pressed") == str(not dark).lower()
    )
    after = colors()
    assert after[0] != before[0]
    assert after[1] != before[1], "plots have the colours of the page"


def test_choices_survive_a_reload(show: Any) -> None:
    driver = show("sweep")
    set_slider(driver, 0.2)
    driver.find_element("css selector", "[data-filter=leaderboard]").send_keys("model3")
    click(driver, "#leaderboard thead button", 1)
    click(driver, "[data-axes=pareto] input", 1)
    click(driver, "#legend-runs [data-line]", 1)
    click(driver, "#theme")
    driver.refresh()
    assert names(driver) == ["model3"]
    assert texts(driver, "#threshold-value") == ["0.20"]
    assert texts(driver, "#plot-pareto .xtitle") == ["parameters (millions)"]
    assert len(driver.find_elements("css selector", "#plot-loss .scatterlayer .trace")) == 4
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_command_is_copied(show: Any) -> None:
    driver = show("sweep")
    click(driver, "[data-copy]")
    for _ in range(20):
        if "Copied" in texts(driver, "[data-copy]"):
            break
        time.sleep(0.05)
    assert "Copied" in texts(driver, "[data-copy]")[0]


def test_keyboard_reaches_everything(show: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = show("sweep")
    driver.find_element("css selector", "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    unreachable = "main [onclick], main [tabindex='-1'], main button[tabindex]"
    assert driver.find_elements("css selector", unreachable) == []
    levels = driver.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_names_are_shown_as_they_are(show: Any) -> None:
    driver = show("choice")
    assert driver.find_elements("css selector", "main img:not(#thumbs img)") == []
    assert any(EVIL in text for text in texts(driver, ".dropped li"))
    assert EVIL in texts(driver, "#classes-0 tbody th")
    titles = driver.execute_script(
        "return [...document.querySelectorAll('#panels title')].map((e) => e.textContent)"
    )
    assert EVIL in titles


def test_script_that_was_smuggled_in_does_not_run(
    driver: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["run"].read_text("utf-8")
    evil = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"
    file = tmp_path / "page.html"
    file.write_text(
        text.replace('<main id="main" tabindex="-1">', f'<main id="main" tabindex="-1">{evil}'), "utf-8"
    )
    driver.get(file.as_uri())
    time.sleep(0.3)
    assert driver.title == "Run run"
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))
    requests(driver)


def test_served_page_loads_again_where_it_was(driver: Any, tmp_path: Path) -> None:
    from selenium.common.exceptions import WebDriverException

    put_sweep(tmp_path, 4)
    with PageServer(LivePage(tmp_path, period=0.1), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        emulate(driver, 1280)
        driver.get(server.url)
        driver.find_element("css selector", "[data-filter=leaderboard]").send_keys("model")
        driver.execute_script("scrollTo(0, 700)")
        put_full(tmp_path / "backbone=model9", 50.0)
        for _ in range(150):
            with suppress(WebDriverException):  # the page may be loading
                if len(names(driver)) == 5:
                    break
            time.sleep(0.2)
        assert names(driver)[0] == "model9"
        assert (
            driver.find_element("css selector", "[data-filter=leaderboard]").get_attribute("value") == "model"
        )
        for _ in range(20):
            if driver.execute_script("return scrollY") == 700:
                break
            time.sleep(0.1)
        assert driver.execute_script("return scrollY") == 700
        assert {url.removeprefix(server.url) for url in requests(driver)} == {"", "version"}
        server.shutdown()
    assert driver.get_log("browser") == []
