"""Take the pictures of the pages: ``report.png`` and ``routing.png`` beside this file.

    python docs/pictures/shoot_pages.py CHECKPOINT

CHECKPOINT is a checkpoint in the folder of its run, such as ``checkpoints/tiny/final``. Needs Chromium and its
driver (Debian: ``chromium chromium-driver``) and the development packages.
"""

import base64
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from support.browser import Browser, headless_browser  # noqa: E402 - the helper of the tests

from litmoe.report.routing.explore import explore  # noqa: E402
from litmoe.report.routing.page import write_routing  # noqa: E402
from litmoe.report.run_page import write_report  # noqa: E402

WIDTH, HEIGHT = 1200, 1000


def shoot(browser: Browser, page: Path, picture: Path, top: str) -> None:
    """Take a picture of a page from the element ``top`` on."""
    browser.open(page, width=WIDTH, height=HEIGHT)
    y = browser.run(f"document.querySelector({top!r}).getBoundingClientRect().top + scrollY - 12")
    clip = {"x": 0, "y": y, "width": WIDTH, "height": HEIGHT, "scale": 1}
    options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    taken = browser.driver.execute_cdp_cmd("Page.captureScreenshot", options)
    picture.write_bytes(base64.b64decode(taken["data"]))
    print(f"wrote {picture} ({picture.stat().st_size / 1000:.0f} kB)")


def main() -> None:
    """Write both pages into a temporary folder and take their pictures."""
    checkpoint = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary, headless_browser() as browser:
        folder = Path(temporary)
        write_report([checkpoint.parent], out=folder / "report.html")
        write_routing(explore([checkpoint], accelerator="cpu", say=print), folder / "routing.html")
        shoot(browser, folder / "report.html", HERE / "report.png", "h1")
        shoot(browser, folder / "routing.html", HERE / "routing.png", "h1")


if __name__ == "__main__":
    main()
