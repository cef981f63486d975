"""The page of `rgsud serve --ui` and the evaluation's report, by clicks and keys in a real browser."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving_process import ServingProcess

from rgsud_lib.bundle import open_bundle, seal
from rgsud_lib.data.manifest import Dataset
from rgsud_lib.evaluation.evaluate import evaluate_models
from rgsud_lib.files import link_tree

pytestmark = pytest.mark.integration
PHONE = {"width": 390, "height": 844}
GREY = "#7a8590"
DROP = """([selector, type, name, data]) => {
  const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const event = type === 'paste' ? new ClipboardEvent(type, {clipboardData: transfer, bubbles: true})
    : new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def workdir(mini_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir whose evaluation and dataset are those of the finished tiny run."""
    root = tmp_path_factory.mktemp("page")
    (root / "stages").mkdir()
    for name, folder in (("prepare-0", mini_run.dataset), ("reinforce-0", mini_run.reinforced)):
        link_tree(folder, root / "stages" / name)
    evaluation = root / "stages" / "evaluate-0"
    evaluation.mkdir()
    evaluate_models(mini_run.config, mini_run.dataset, mini_run.recycled, mini_run.reinforced, evaluation)
    seal(evaluation, "evaluation", "0", {"dataset": open_bundle(mini_run.dataset).digest})
    return root


@pytest.fixture(scope="module")
def address(workdir: Path) -> Iterator[str]:
    model = str(workdir / "stages" / "reinforce-0")
    service = ServingProcess("--ui", "--model", model, "--workdir", str(workdir), cwd=workdir)
    yield service.address
    service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found, "chromium is missing; .ci/run installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address; afterwards nothing may have gone wrong in the page, nor gone elsewhere."""
    pages, wrong, asked = [], [], set()

    def open_page(where: str, **options: object) -> Page:
        page = browser.new_page(**options)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.add(request.url.split("/")[2] if "//" in request.url else "data"))
        page.goto(where)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []
    assert {host for host in asked if host not in ("", "data")} <= {pages[0].url.split("/")[2]}


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "street.jpg"
    Image.new("RGB", (320, 200), GREY).save(path)
    return path


def fits(page: Page) -> bool:
    """Nothing has to be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def position(page: Page, scope: str = "") -> str:
    return page.locator(f"{scope} .compare").first.evaluate("one => one.style.getPropertyValue('--x')")


def test_choose_a_photograph_by_keyboard_compare_and_download(visit, address, photograph) -> None:
    page = visit(address)
    page.keyboard.press("Tab")
    chooser = page.get_by_label("Drop a photograph here, choose one, or paste it")
    expect(chooser).to_be_focused()
    chooser.set_input_files(photograph)  # Space opens the system's dialog, which a headless browser may not show
    expect(page.get_by_role("status")).to_have_text("street.jpg is done.")
    slider = page.get_by_role("slider", name="Slide between before (left) and derained (right)")
    expect(slider).to_be_focused()
    page.keyboard.press("ArrowRight")
    assert position(page) == "50.5%"
    page.keyboard.press("Home")
    assert position(page) == "0%"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert abs(float(position(page).rstrip("%")) - 80) < 3
    scores = page.locator("#scores th").all_inner_texts()
    assert [score.split(",")[0] for score in scores] == ["Decorrelation", "Rain layer", "PIQE"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download street-derained.jpg").click()
    with Image.open(download.value.path()) as image:
        assert (image.format, image.size) == ("JPEG", (320, 200))


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_dropped_and_pasted(visit, address, photograph, way: str) -> None:
    page = visit(address)
    data = base64.b64encode(photograph.read_bytes()).decode()
    if way == "drop":
        page.evaluate(DROP, ["#drop", "dragover", "x.jpg", data])
        expect(page.locator("#drop")).to_have_class("drop over")
    page.evaluate(DROP, ["#drop", way, "wet.jpg", data])
    expect(page.get_by_role("status")).to_have_text("wet.jpg is done.")
    expect(page.get_by_role("img", name="wet.jpg, derained").first).to_be_visible()
    expect(page.locator("#drop")).to_have_class("drop")


def test_what_is_no_photograph_is_said_and_the_next_one_works(browser, address, photograph) -> None:
    page = browser.new_page()  # whose console names the 415
    page.goto(address)
    page.evaluate(DROP, ["#drop", "drop", "notes.txt", base64.b64encode(b"rain").decode()])
    expect(page.get_by_role("alert")).to_contain_text("notes.txt: not an image: no PNG, JPEG")
    expect(page.locator("#result")).to_be_hidden()
    page.set_input_files("#file", photograph)
    expect(page.get_by_role("status")).to_have_text("street.jpg is done.", timeout=60_000)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.close()


def test_one_that_takes_long_can_be_cancelled(visit, address, photograph) -> None:
    page = visit(address)
    page.route("**/derain*", lambda route: None)
    page.set_input_files("#file", photograph)
    expect(page.get_by_role("status")).to_have_text("Deraining street.jpg …")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def test_the_gallery_of_the_run(visit, address, mini_run) -> None:
    page = visit(address)
    buttons = page.locator(".gallery button")
    assert buttons.count() >= 4, "three pairs, and what was held back of the rainy ones"
    seen = Dataset.open(mini_run.dataset).manifest.transductive()
    assert page.locator(".gallery small", has_text="trained on").count() == len(seen) > 0
    pair = page.get_by_role("button", name="20 PSNR RGB")
    pair.locator("img").evaluate("image => image.decode()")
    pair.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("20 is done.")
    for name in ("derained", "clean"):
        choice = page.locator("#compared button", has_text=name)
        choice.click()
        expect(choice).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("slider", name=f"and {name} (right)")).to_be_visible()
    assert page.locator("#compared .compare img").nth(1).evaluate("image => image.decode().then(() => true)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phones_width_and_dark_mode(visit, address, photograph, scheme: str) -> None:
    page = visit(address, viewport=PHONE, color_scheme=scheme)
    assert fits(page)
    page.set_input_files("#file", photograph)
    expect(page.get_by_role("status")).to_have_text("street.jpg is done.")
    assert fits(page)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) < 64) == (scheme == "dark")


def test_nothing_foreign_may_run_in_the_page(browser, address) -> None:
    page = browser.new_page()
    page.goto(address)
    refused = page.evaluate("""() => new Promise(done => {
      document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
      const script = document.createElement('script');
      script.textContent = 'window.foreign = 1';
      document.body.append(script);
    })""")
    assert refused == "script-src-elem" and page.evaluate("window.foreign") is None
    page.close()


def test_a_workdir_without_an_evaluation_has_a_page_all_the_same(visit, workdir, tmp_path) -> None:
    model = str(workdir / "stages" / "reinforce-0")
    service = ServingProcess("--ui", "--model", model, "--workdir", str(tmp_path), cwd=tmp_path)
    try:
        page = visit(service.address)
        expect(page.get_by_text("None: no finished 'evaluation' bundle")).to_be_visible()
        page.close()
    finally:
        service.stop()


def test_the_reports_sliders_choices_and_tables(visit, workdir) -> None:
    page = visit((workdir / "stages" / "evaluate-0" / "report.html").as_uri())
    strip = page.locator(".strip").first
    slider = strip.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert position(page) == "49.5%"
    choice = strip.locator(".figures button", has_text="clean")
    expect(choice).to_have_attribute("aria-pressed", "false")
    choice.click()
    expect(choice).to_have_attribute("aria-pressed", "true")
    expect(strip.locator(".compare .right")).to_have_text("clean")
    assert "clean" in strip.locator(".compare img").nth(1).get_attribute("alt")
    assert "and clean (right)" in slider.get_attribute("aria-label")
    table = page.locator("table.sortable").first
    head = table.get_by_role("button", name="gain")
    for order, reverse in (("descending", True), ("ascending", False)):
        head.click()
        expect(table.locator("th[aria-sort]")).to_have_attribute("aria-sort", order)
        gains = [float(text.replace("−", "-")) for text in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
        assert len(gains) == 3 and gains == sorted(gains, reverse=reverse)
    page.get_by_text("Full configuration").click()
    expect(page.locator("details pre")).to_be_visible()
    page.set_viewport_size(PHONE)
    assert fits(page)


def test_the_service_lives_through_all_of_it(visit, address) -> None:
    assert '"ready":true' in visit(f"{address}/v2/health/ready").content()
