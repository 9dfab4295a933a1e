"""The page of an explanation in a real browser: headless Chromium, driven by its own driver.

Skipped, with a warning in pytest's summary, where Chromium, its driver or selenium are missing
(Debian: apt-get install chromium chromium-driver; pip install selenium).
"""

from __future__ import annotations

import json
import shutil
import time
import warnings

import numpy as np
import pytest

from pyiqa_ma_agiqa.experts import EXPERTS
from pyiqa_ma_agiqa.explaining.explanation import Explanation
from pyiqa_ma_agiqa.explaining.page import page
from pyiqa_ma_agiqa.explaining.wording import MINUS

from ..images import picture

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
NAMES = {
    "plain": "landscape.png",
    "hostile": '<script>document.title = "run"</script><img src="http://example.org/x.png">&\n"\'.png',
    "long": "x" * 300 + ".png",
    "tall": "tall.png",
    "published": "published.png",
}
WIDTHS = (320, 360, 1280)
DIFFERENCES = (-0.05, 0.07, -0.97)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program, driver = (
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    )
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    if not (program and driver and webdriver):
        reason = "the pages were NOT tested in a browser: needs chromium, chromedriver and selenium"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of pages by kind."""
    folder = tmp_path_factory.mktemp("pages")
    files = {}
    for kind, name in NAMES.items():
        image = picture(1500, 120) if kind == "tall" else picture(256, 320)
        published = kind == "published"
        shares = (152.25, 90.5, -240.0) if published else (0.8, 0.9, -0.2)
        explanation = Explanation(
            metric="ma_agiqa_owl2" if published else "ma_agiqa",
            score=sum(shares),
            percentile=None if published else 20.4,
            typical=None if published else 2.45,
            shares=dict(zip(EXPERTS, shares, strict=True)),
            differences=None if published else dict(zip(EXPERTS, DIFFERENCES, strict=True)),
            gate=dict.fromkeys(EXPERTS, 1.0),
            interval=None if published else (0.9, 2.1),
            familiarity=None if published else 0.01,
            quality_map=np.linspace(-1.3, 0.9, 80, dtype=np.float32).reshape(8, 10),
            image=image,
        )
        files[kind] = folder / f"{kind}.html"
        files[kind].write_text(page(explanation, name), encoding="utf-8")
    return files


def show(browser, path, width=1280, scheme="light"):
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # takes out what earlier pages left
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get(path.as_uri())


@pytest.mark.parametrize("kind", NAMES)
def test_nothing_is_fetched_and_nothing_is_complained_of(browser, pages, kind):
    show(browser, pages[kind])
    uri = pages[kind].as_uri()
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # The browser's own first page may still be loading when ours comes.
    urls = [params["request"]["url"] for params in sent if params["documentURL"] == uri]
    assert [url for url in urls if not url.startswith("data:")] == [uri]
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert loaded == [True, True]


def test_a_hostile_name_is_text(browser, pages):
    show(browser, pages["hostile"])
    heading = browser.execute_script("return document.querySelector('h1').textContent")
    assert heading == NAMES["hostile"].replace("\n", r"\n")
    assert browser.title == f"1.50 – {heading}"
    assert browser.execute_script("return document.scripts.length") == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", NAMES)
def test_the_page_fits_the_screen(browser, pages, kind, width):
    show(browser, pages[kind], width)
    assert browser.execute_script("return document.documentElement.clientWidth") >= width - 20
    # What sticks out, or holds more than it shows, such as text that is cut off.
    outside = browser.execute_script("""
        const width = document.documentElement.clientWidth
        const page = document.documentElement.scrollWidth > width ? ["the page"] : []
        return page.concat([...document.querySelectorAll("body *")].filter(element => {
            const box = element.getBoundingClientRect()
            return box.left < -0.5 || box.right > width + 0.5
        }).map(element => element.outerHTML.slice(0, 80)))
    """)
    assert outside == []
    # Text large enough to read, lines not endless.
    assert browser.execute_script("""
        return [...document.querySelectorAll("p, li, td, th, span, figcaption, footer")]
            .filter(element => element.textContent.trim())
            .every(element => parseFloat(getComputedStyle(element).fontSize) >= 13)
    """)
    columns = browser.execute_script("""
        return [...document.querySelectorAll("figure")].map(figure => figure.getBoundingClientRect().left)
    """)
    assert (columns[0] < columns[1]) == (width == 1280)


def test_image_and_map_are_shown_at_the_right_proportions(browser, pages):
    for width in WIDTHS:
        show(browser, pages["plain"], width)
        sizes = browser.execute_script("return [...document.images].map(i => [i.width, i.height])")
        for shown in sizes:
            assert shown[0] / shown[1] == pytest.approx(320 / 256, rel=0.02)


def tree(browser):
    """Nodes of the accessibility tree that a screen reader is told of, in order: role, name, properties."""
    nodes: list = []
    for _ in range(600):  # the tree comes some time after the page
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        if len(nodes) > 1:
            break
        time.sleep(0.1)
    found = []
    for node in nodes:
        if not node["ignored"]:
            properties = {item["name"]: item["value"].get("value") for item in node.get("properties", [])}
            value = node.get("value", {}).get("value")
            found.append((node["role"]["value"], node["name"]["value"], properties | {"value": value}))
    return found


def test_what_a_screen_reader_is_told(browser, pages):
    show(browser, pages["plain"], 360)
    nodes = tree(browser)
    roles = [role for role, _, _ in nodes]
    for landmark in ("banner", "main", "contentinfo"):
        assert roles.count(landmark) == 1

    headings = [(properties["level"], name) for role, name, properties in nodes if role == "heading"]
    assert headings == [
        (1, "landscape.png"),
        (2, "Score"),
        (2, "What the score is made of"),
        (2, "The image and its quality by patch"),
        (2, "How to read this"),
        (3, "What the figures mean"),
        (3, "What they do not mean"),
    ]
    regions = [name for role, name, _ in nodes if role == "region"]
    assert regions == [name for level, name in headings if level == 2]

    text = " ".join(name for role, name, _ in nodes if role == "StaticText")
    assert "Score 1.50 on the MOS scale of AGIQA-3K: about 0 to 5, higher is better; percentile 20" in text
    assert "They are no diagnosis" in text

    assert [name for role, name, _ in nodes if role == "table"] == [
        "What each expert gives this image more or less than it gives a typical one; with the typical score "
        "they sum to the score"
    ]
    assert [name for role, name, _ in nodes if role == "columnheader"] == ["Expert", "Difference", "Bar"]
    assert [name for role, name, _ in nodes if role == "rowheader"] == ["a typical score", *EXPERTS, "score"]
    words = ["0.05 less than typical", "0.07 more than typical", "0.97 less than typical"]
    figures = [f"{MINUS}0.05", "+0.07", f"{MINUS}0.97"]
    between = [cell for pair in zip(figures, words, strict=True) for cell in pair]
    cells = [name for role, name, _ in nodes if role == "cell"]
    assert cells == ["2.45", "", *between, "1.50", ""]

    # Chromium tells of aria-valuetext in the name of the cell, and as a property only in some versions.
    assert [name for role, name, _ in nodes if role == "meter"] == list(EXPERTS)
    script = "return [...document.querySelectorAll('[role=meter]')].map(m => m.ariaValueText)"
    assert browser.execute_script(script) == words

    images = [name for role, name, _ in nodes if role == "image"]
    assert images[0] == "The scored image, landscape.png"
    what = "Quality by patch, against a typical share, 10 by 8 patches over the image in grey: from"
    assert images[1].startswith(what)
    assert len(images) == 2


CONTRAST = """
    const parse = text => text.match(/[\\d.]+/g).map(Number)
    const light = colour => {
        const [r, g, b] = colour.slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = parse(getComputedStyle(element).backgroundColor)
            if (colour.length == 3 || colour[3] == 1) return colour
        }
        throw "no background"
    }
    const contrast = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b)
        return (high + 0.05) / (low + 0.05)
    }
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    const text = []
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement
        if (!walker.currentNode.data.trim()) continue
        text.push([contrast(parse(getComputedStyle(element).color), behind(element)), element.outerHTML])
    }
    const graphics = [...document.querySelectorAll(".filled, .zero")].map(element => [
        contrast(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement)),
        element.className
    ])
    const line = document.querySelector(".scale line:not(.typical)")
    graphics.push([contrast(parse(getComputedStyle(line).stroke), behind(document.body)), "line"])
    return [text, graphics]
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser, pages, scheme):
    """Of text at least 4.5, of what is drawn and carries meaning at least 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    show(browser, pages["plain"], scheme=scheme)
    text, graphics = browser.execute_script(CONTRAST)
    assert len(text) > 40 and len(graphics) == 7
    assert [words for contrast, words in text if contrast < 4.5] == []
    assert [words for contrast, words in graphics if contrast < 3] == []


def test_bars_are_as_long_as_their_figures(browser, pages):
    show(browser, pages["plain"])
    measured = browser.execute_script("""
        return [...document.querySelectorAll(".track")].map(track => {
            const box = name => track.querySelector(name).getBoundingClientRect()
            const [bar, zero] = [box(".filled"), box(".zero")]
            return [zero.left, bar.left, bar.right, track.getBoundingClientRect().width]
        })
    """)
    unit = measured[0][3] / 3  # the track goes from -1.5 to 1.5
    for (zero, left, right, _), difference in zip(measured, DIFFERENCES, strict=True):
        assert right - left == pytest.approx(abs(difference) * unit, abs=1.5)
        assert (left if difference > 0 else right) == pytest.approx(zero, abs=1.5)


def test_the_line_stands_at_the_score(browser, pages):
    show(browser, pages["plain"], 360)
    line, ticks = browser.execute_script("""
        const middle = element => {
            const box = element.getBoundingClientRect()
            return (box.left + box.right) / 2
        }
        return [middle(document.querySelector(".scale line:not(.typical)")),
                [...document.querySelectorAll(".ticks span")].map(middle)]
    """)
    assert line == pytest.approx((ticks[1] + ticks[2]) / 2, abs=1.5)
