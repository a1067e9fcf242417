"""The one style sheet of the shopper's pages, and the content security policy that lets it and nothing else run."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

STYLE = files("scan_api.web").joinpath("style.css").read_text(encoding="utf-8")

# The browser hashes exactly what stands between <style> and </style>: the templates insert STYLE there, untouched.
_STYLE_HASH = b64encode(sha256(STYLE.encode("utf-8")).digest()).decode("ascii")

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
