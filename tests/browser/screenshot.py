"""Draw docs/images/chat.png: two windows of the chat, as they look now.

python -m tests.browser.screenshot
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser.stage import ChatServer, Window, find_chromium, open_browser

TARGET = Path(__file__).parents[2] / "docs" / "images" / "chat.png"

TALK = [
    ("Ada", "Morning! Is the release out?"),
    ("Grace", "Nearly. The last test is running."),
    ("Grace", "It cancels a send at every checkpoint and then looks for torn frames."),
    ("Ada", "And?"),
    ("Grace", "None. Not one."),
    (
        "Linus",
        "Then I'll write it up:\n  1. rooms that wait for nobody\n  2. a history that stays\n  3. this page",
    ),
    ("Ada", "Somebody restarted the server just now, by the way. Did you notice?"),
    ("Linus", "No."),
]

FRAME = """<!doctype html><style>
  body { margin: 0; width: 1500px; height: 880px; position: relative; overflow: hidden;
         background: linear-gradient(135deg, #dfe3fb, #c9d8f4 45%, #e7d9f5); }
  img { position: absolute; display: block; box-shadow: 0 24px 70px rgb(30 32 60 / .28); }
  .wide { left: 56px; top: 52px; width: 1140px; border-radius: 14px; }
  .phone { right: 48px; bottom: 36px; width: 306px; border-radius: 34px; border: 9px solid #0c0d13; }
</style>
<img class="wide" src="data:image/png;base64,WIDE"><img class="phone" src="data:image/png;base64,PHONE">"""


def draw(browser: Browser, server: ChatServer) -> bytes:
    """Let people talk, and return the picture."""
    windows = {
        "Ada": Window(browser, server.url, width=1140, height=740),
        "Linus": Window(browser, server.url, width=390, height=790, dark=True),
        "Grace": Window(browser, server.url),
    }
    for name, window in windows.items():
        window.come_as(name)
    windows["Grace"].page.get_by_label("Join or make a room").fill("tea")
    windows["Grace"].page.get_by_label("Join or make a room").press("Enter")
    for count, (name, text) in enumerate(TALK, 1):
        if count == 2:
            windows["Grace"].page.get_by_role("button", name="lobby").click()
        windows[name].say(text)
        for window in (windows["Ada"], windows["Linus"]):
            window.wait_said(count)
    server.stop()
    server.start()
    for window in windows.values():
        window.wait_online()
    ada = windows["Ada"].page
    expect(ada.get_by_role("list", name="Other rooms")).to_contain_text("tea", timeout=20_000)
    windows["Grace"].page.get_by_role("button", name="lobby").click()
    windows["Grace"].writing.press_sequentially("I")
    expect(ada.get_by_text("is typing…")).to_be_visible()
    ada.wait_for_timeout(800)
    pictures = [windows[name].page.screenshot(type="png") for name in ("Ada", "Linus")]
    frame = browser.new_page(viewport={"width": 1500, "height": 880})
    wide, phone = (base64.b64encode(picture).decode() for picture in pictures)
    frame.set_content(FRAME.replace("WIDE", wide).replace("PHONE", phone))
    return frame.screenshot(type="png")


def main() -> None:
    """Write the picture."""
    path = find_chromium()
    assert path is not None, "Chromium is not installed"
    with tempfile.TemporaryDirectory() as folder, open_browser(path) as browser:
        server = ChatServer(Path(folder) / "chat.db")
        server.start()
        try:
            picture = draw(browser, server)
        finally:
            server.stop()
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(picture)
    print(f"{TARGET}: {len(picture):,} bytes")


if __name__ == "__main__":
    main()
