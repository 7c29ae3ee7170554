"""Imported before the rest: nothing is thrown away while libraries, tables and forms are loaded, but Python would look
through all of them again and again for garbage, which takes a quarter of a start.

It goes on looking, after every 50,000 new things instead of every 700: no request or job makes as many.
"""

import gc

gc.set_threshold(50_000, 20, 20)
