"""A real headless Chromium, with what it logged and asked the network for."""

import json
import shutil
import time
from contextlib import contextmanager

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class Browser:
    """Opens pages, one after another, and waits until they say that they are ready."""

    def __init__(self, driver):
        self.driver = driver

    def scheme(self, name):
        """Prefer "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, file, fragment=""):
        """Load the file; returns the milliseconds until the page was ready, by its own clock."""
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(file.resolve().as_uri() + fragment)
        return float(self.wait("return document.documentElement.dataset.ready"))

    def run(self, script, *arguments):
        """What the script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script, *arguments, seconds=20):
        """The first true value that the script returns; AssertionError with the console when there is none."""
        deadline = time.time() + seconds
        while time.time() < deadline:
            if value := self.run(script, *arguments):
                return value
            time.sleep(0.02)
        raise AssertionError(f"never true: {script}\n{self.errors()}")

    def text(self, selector):
        """The visible text of the first such element."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def texts(self, selector):
        """The visible texts of all such elements."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector)

    def choose(self, name, value):
        """Choose an option of the select `name`, as a user would."""
        script = """const node = document.querySelector(`#clips select[name=${arguments[0]}]`);
                    node.value = arguments[1]; node.dispatchEvent(new Event("change"));"""
        self.run(script, name, value)

    def errors(self):
        """What the console complained about since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """The addresses that were asked for since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def browser():
    """A Browser; the test is skipped where no Chromium with its driver is installed."""
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip(f"needs Chromium and chromedriver (Debian: chromium chromium-driver); found {program}, {driver}")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
