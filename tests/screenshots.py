"""`make screenshots`: the pictures in docs/, taken of the demonstration that `make run` shows in another terminal."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
CASE = "/cases/dfe-real-time-data"
# file -> (who is logged in, address, width and height in pixels, light or dark)
PICTURES = {
    "case-page": ("", CASE, (1440, 1000), "light"),
    "look/case-dark": ("", CASE, (1440, 1000), "dark"),
    "look/case-768": ("", CASE, (768, 1000), "light"),
    "look/case-320": ("", CASE, (320, 1000), "light"),
    "look/pledge-form": ("", f"{CASE}/pledge", (768, 1300), "light"),
    "look/home": ("", "/", (1440, 1000), "light"),
    "look/own-case": ("owner@example.org", f"/owner{CASE}", (1440, 1000), "light"),
    "look/moderation": ("moderator@example.org", "/moderation", (1440, 1000), "light"),
}  # fmt: skip
COLOURS = 48


def take(site: str, password: str, chromium: str) -> None:
    """Take each picture in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (who, address, (width, height), scheme) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            if who:
                _log_in(page, site, who, password)
            page.goto(site + address)
            _keep(page.screenshot(), DOCS / f"{name}.png")
            page.close()
        browser.close()


def _log_in(page: Page, site: str, email: str, password: str) -> None:
    page.goto(f"{site}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    digits, log_out = page.get_by_label("Six digits"), page.get_by_role("button", name="Log out")
    digits.or_(log_out).wait_for()
    if digits.is_visible():
        ask = [sys.executable, "-m", "flask", "--app", "app", "demo", "codes"]
        printed = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        digits.fill(next(line.split()[0] for line in printed.splitlines() if line.endswith(f" {email}")))
        page.get_by_role("button", name="Log in").click()
        log_out.wait_for()


def _keep(taken: bytes, file: Path) -> None:
    """With as few colours as the eye needs, a picture weighs a third."""
    file.parent.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(taken)) as picture:
        picture.convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True)
    print(f"{file.relative_to(DOCS.parent)}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    found = shutil.which("chromium")
    if not found:
        sys.exit("Pictures need Chromium: apt-get install chromium")
    take(os.environ["SITE_URL"], (Path(os.environ["STANDING_VAR"]) / "demo-password").read_text("utf-8").strip(), found)
