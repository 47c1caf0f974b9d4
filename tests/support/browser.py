"""A real browser without a window, to look at pages as a person's browser shows them.

Debian's ``chromium`` and ``chromium-driver`` are enough; where neither is installed the tests skip and say so.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 30


class Browser:
    """One browser; a page at a time."""

    def __init__(self, driver: Any) -> None:
        """``driver``: Selenium's."""
        self.driver = driver

    def open(self, page: Path, width: int = 1200, height: int = 900, **media: str) -> None:
        """Open a page from its file and wait until it has drawn itself.

        Args:
            page: the file.
            width: of the window's inside, pixels.
            height: likewise.
            media: features of the medium, such as ``prefers_color_scheme="dark"``.
        """
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # what the page before left there
        self.driver.get(page.absolute().as_uri())
        self.wait("document.documentElement.dataset.drawn && Bokeh.documents.every((d) => d.is_idle)")

    def run(self, script: str, *args: Any) -> Any:
        """The value of a JavaScript expression, or of a body with ``return``."""
        body = script if "return " in script else f"return {script}"
        return self.driver.execute_script(body, *args)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, _SECONDS, 0.05).until(lambda _: self.run(f"Boolean({condition})"))

    def press(self, keys: str) -> None:
        """Press keys in the element that has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def choose(self, name: str, value: str) -> None:
        """Choose a value of a select or a group of radio buttons as a person would, and wait for the page."""
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import Select

        if self.run(
            "document.querySelector(`select[name='${arguments[0]}']`)?.value === arguments[1]", name, value
        ):
            return
        self.run("document.documentElement.dataset.drawn = ''")
        found = self.driver.find_elements(By.CSS_SELECTOR, f"select[name='{name}']")
        if found:
            Select(found[0]).select_by_value(value)
        else:
            self.driver.find_element(By.CSS_SELECTOR, f"input[name='{name}'][value='{value}']").click()
        self.wait("document.documentElement.dataset.drawn && Bokeh.documents.every((d) => d.is_idle)")

    def complaints(self) -> list[str]:
        """What the console holds that is worse than a note, since the page was opened."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, since it was opened; data within the page does not count."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(str(message["params"]["request"]["url"]))
        return [address for address in found if not address.startswith(("data:", "blob:"))]

    def source(self, name: str) -> dict[str, list[Any]]:
        """The columns that a chart draws, by the name of its data source."""
        script = """
            const model = Bokeh.documents.map((d) => d.get_model_by_name(arguments[0])).find((m) => m);
            return model ? Object.fromEntries(Object.entries(model.data).map(([k, v]) => [k, [...v]])) : null;
        """
        found = self.run(script, name)
        assert found is not None, f"no chart draws {name}"
        return dict(found)


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """A browser of this machine; the test is skipped where there is none."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium, which drives the browser, is not installed"
    )
    program = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip("no browser to look at pages with: on Debian, apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
