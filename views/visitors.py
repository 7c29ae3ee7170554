"""Where a request comes from: its address, its network, and the browser in plain words."""

import ipaddress

from flask import request

# What stands in the name that a browser gives itself -> what people call it. The first that is found is it: most name
# others as well.
BROWSERS = {
    "Edg": "Edge", "OPR/": "Opera", "SamsungBrowser": "Samsung Internet", "Firefox": "Firefox", "FxiOS": "Firefox",
    "CriOS": "Chrome", "Chrome": "Chrome", "Safari": "Safari", "w3m": "w3m", "Lynx": "Lynx", "Links": "Links",
}  # fmt: skip
SYSTEMS = {
    "Windows": "Windows", "iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Mac OS X": "macOS",
    "CrOS": "ChromeOS", "KAIOS": "KaiOS", "Linux": "Linux", "BSD": "BSD",
}  # fmt: skip


def browser() -> str:
    """As "Firefox, Linux", or "" for one that says nothing we know."""
    named = request.user_agent.string
    found = (next((words for sign, words in known.items() if sign in named), "") for known in (BROWSERS, SYSTEMS))
    return ", ".join(filter(None, found))


def address() -> str:
    """Whose tries are counted together. In IPv6 everybody has as many addresses as they like, in one /64."""
    return network(32, 64) or "nowhere"


def network(of_ipv4: int, of_ipv6: int) -> str:
    """The beginning of the address, so many bits of it: 192.0.2.0/24, or 2001:db8::/48. "" when there is none."""
    try:
        known = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return ""
    if isinstance(known, ipaddress.IPv6Address):
        known = known.ipv4_mapped or known
    bits = of_ipv4 if known.version == 4 else of_ipv6
    return str(ipaddress.ip_network((int(known), bits) if known.version == 4 else (known, bits), strict=False))
