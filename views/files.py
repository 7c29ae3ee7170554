"""What is kept of somebody, as a file that they take with them: JSON, which people and programs can read."""

import json
from typing import Any

from flask import Response, make_response

import config


def as_file(held: dict[str, Any], name: str) -> Response:
    site = config.current()
    written = {"site": site.site_url, "kept_by": site.operator_name, **held}
    answer: Response = make_response(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    answer.mimetype = "application/json"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.json"'
    return answer
