"""The page in a real browser, as a phone and a desk see it."""

import shutil

import numpy as np
import pytest
import torch

from stpn_data.deteriorated import DeterioratedVideo
from stpn_tasks.detection.build import build_preparation, build_test_sampler
from stpn_tasks.detection.detections import Detections
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.metrics import AveragePrecision
from stpn_tasks.recipes import small
from stpn_tasks.report.build import write_report
from stpn_tasks.report.pictures import Pictures
from stpn_tasks.results import Model, Results, Run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAMES = ("baseline", "baseline_equal_compute", "stpn", "stpn_other", "static", '<b>"x"</b>' * 3)
CONDITIONS = (
    *("all", "deteriorated", "clean", "motion_blur", "defocus", "occlusion", "low_light"),
    *("low_resolution", "slow", "medium", "fast"),
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver on the path")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-background-networking"),
        *("disable-component-update", "disable-sync", "no-first-run", "disable-dev-shm-usage"),
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


def precision(rng):
    ap50 = rng.uniform(0.1, 0.9)
    curve = tuple(np.sort(rng.uniform(0, 1, 101))[::-1].tolist())
    return AveragePrecision(ap50 / 2, ap50, *[ap50 / 3] * 4, curve)


def found_everywhere(videos):
    """The objects themselves, named one class too far in every third frame."""
    by_video = {}
    for number, video in enumerate(videos.videos):
        by_video[number] = []
        for t in range(video.num_frames):
            objects = videos.objects(number, t)
            labels = (objects.labels + (t % 3 == 0)) % len(videos.classes)
            scores = torch.linspace(0.9, 0.5, len(labels))
            boxes = torch.from_numpy(objects.boxes_xyxy)
            by_video[number].append(Detections(boxes, scores, torch.from_numpy(labels)))
    return by_video


@pytest.fixture(scope="module")
def page(tiny, tmp_path_factory):
    """A report with everything that one can have, of fake numbers."""
    rng = np.random.default_rng(0)
    models = []
    for name in NAMES:
        runs = []
        for seed in range(3):
            sets = ("same_class", "mixed_class")
            numbers = {name: {c: precision(rng) for c in CONDITIONS} for name in sets}
            runs.append(Run(seed, numbers, 600, 9.0))
        models.append(Model(name, name.replace("_", " "), f"About {name}.", tuple(runs)))
    about = {"command": "stpn demo " + "--option=" + "x" * 200, "environment": {"commit": "abc"}}
    videos = DeterioratedVideo(split="test", num_videos=4, num_workers=0, progress=False)
    videos.classes = ("<b>horizontal</b>", *videos.classes[1:])
    recipe = tiny.recipe()
    prepare = build_preparation(small(), torch.device("cpu"))
    detector = tiny.detector(recipe, len(videos.classes))
    inference = VideoInference(detector, build_test_sampler(recipe), prepare)
    found = found_everywhere(videos)
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    none = {number: [nothing] * len(frames) for number, frames in found.items()}
    path = tmp_path_factory.mktemp("report") / "report.html"
    pictures = Pictures(videos, {"baseline": none, "stpn": found}, inference, "same_class")
    write_report(path, Results("A report", about, tuple(models)), pictures)
    return path


def open_at(browser, page, width, scheme="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())


def ask(browser, what):
    return browser.execute_script(f"return {what}")


@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole_at_every_width(browser, page, width, scheme):
    open_at(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    images = ask(browser, "[...document.images].map(i => [i.naturalWidth, i.clientWidth, i.alt])")
    assert len(images) > 100
    assert [image for image in images if 0 in image[:2] or not image[2]] == []
    assert ask(browser, "innerWidth") == width  # a phone widens it to what sticks out
    root = "document.documentElement"
    assert ask(browser, f"{root}.scrollWidth - {root}.clientWidth") == 0
    parts = (
        "[...document.querySelectorAll('h1, h2, h3, p, dt, dd, figcaption, picture, li, .grid')]"
    )
    outside = "e => e.getBoundingClientRect().right > innerWidth + 0.5"
    assert ask(browser, f"{parts}.filter({outside}).map(e => e.outerHTML)") == []
    background = ask(browser, "getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 380) == (scheme == "dark")


def test_wide_tables_scroll_in_their_own_box(browser, page):
    open_at(browser, page, 390)
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert ask(browser, f"{wide}.length") >= 4
    ask(browser, f"{wide}[0].scrollLeft = 60")
    # The names of the rows and the caption stay in sight.
    for part in ("tbody th", "caption span"):
        assert ask(browser, f"{wide}[0].querySelector('{part}').getBoundingClientRect().left") >= 0


def test_time_goes_down_on_a_phone_and_right_on_a_screen(browser, page):
    titles = "[...document.querySelector('.grid').querySelectorAll('.what')]"
    places = f"{titles}.map(e => e.getBoundingClientRect()).map(box => [box.left, box.top])"
    open_at(browser, page, 390)
    left, top = zip(*ask(browser, places), strict=True)
    assert len(set(left)) == 1
    assert sorted(top) == list(top)
    assert len(set(top)) == 6
    open_at(browser, page, 1200)
    left, top = zip(*ask(browser, places), strict=True)
    assert sorted(left) == list(left)
    assert len(set(left)) == 6
    assert max(top) - min(top) < 20
    boxes = ask(
        browser, "[...document.querySelectorAll('.grid .cell img')].map(e => e.clientWidth)"
    )
    assert min(boxes) > 80


def test_figures_are_drawn_for_the_page_they_are_on(browser, page):
    sources = "[...document.querySelectorAll('picture img')].map(i => i.currentSrc)"
    drawn = []
    for scheme in ("light", "dark"):
        open_at(browser, page, 390, scheme)
        drawn.append(ask(browser, sources))
    assert len(drawn[0]) == 8
    assert all(light != dark for light, dark in zip(*drawn, strict=True))


def test_nothing_is_asked_of_the_network(browser, page):
    browser.get_log("performance")
    open_at(browser, page, 1200)
    asked = [
        entry["message"].split('"url":"')[1].split('"')[0]
        for entry in browser.get_log("performance")
        if "Network.requestWillBeSent" in entry["message"] and '"url":"' in entry["message"]
    ]
    assert page.as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


def test_headings_are_in_order_and_links_lead_somewhere(browser, page):
    open_at(browser, page, 390)
    levels = ask(browser, "[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    lost = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash))"
    assert ask(browser, f"{lost}.length") == 0
    ids = ask(browser, "[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert ask(browser, "document.querySelectorAll('main b, script').length") == 0


def test_the_page_is_small_enough_to_send(page):
    assert page.stat().st_size < 4_000_000
