"""What granian loads in the demonstration: the site, in a process that does not outlive granian.

Granian's workers go on serving when granian itself is killed with -9, next to those of its successor.
"""

import signal

from flask import Flask

import app
from demo.leash import end_with_parent


def create_app() -> Flask:
    """The site. Called once, in the main thread of the worker."""
    # SIGKILL, since a worker leaves SIGTERM to its master, and there is none any more.
    end_with_parent(signal.SIGKILL)
    return app.create_app()
