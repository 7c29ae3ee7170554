"""The two programs behind the web server: `python -m jobs worker` and `python -m jobs sweep`.

They are no commands of `flask`, since that loads Alembic with each of its commands, and these two live for long.
"""

import sys

import office
from jobs import queue, sweep

PROGRAMS = {"worker": queue.work, "sweep": sweep.keep_sweeping}


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        sys.exit("Say which of the two: python -m jobs worker, or python -m jobs sweep")
    app = office.create()
    app.config["STANDING"] = app.config["STANDING"].behind_the_pages()
    with app.app_context():
        PROGRAMS[sys.argv[1]]()


if __name__ == "__main__":
    main()
