"""Which requests for a code's page are a person's scan, and which are machines looking ahead."""

import re
from collections.abc import Mapping

# Fetchers that announce themselves: previews in chats and social networks, search engines, monitors, and programs
# named "bot". WeChat's in-app browser (MicroMessenger) is a person; its preview fetcher calls itself a spider. So is
# who scans with a phone of the make Cubot.
_ROBOT = re.compile(
    r"(?<!cu)bot\b|crawl|spider|preview|facebookexternalhit|whatsapp/|slurp|embedly|vkshare|iframely|-scrap/|externalfetcher|mastodon/|googleother|google-|-google|\+/web/snippet|"
    r"headlesschrome.*lighthouse|monitor|pingdom|uptime",
    re.IGNORECASE,
)
_PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")


def is_scan(method: str, headers: Mapping[str, str]) -> bool:
    """Whether to record a scan: a GET by something that is not a robot and not fetching ahead (W3C `Sec-Purpose`)."""
    if method != "GET":
        return False
    if any(
        re.search(r"prefetch|preview|prerender", headers.get(name, ""), re.IGNORECASE) for name in _PREFETCH_HEADERS
    ):
        return False
    return not _ROBOT.search(headers.get("user-agent", ""))
