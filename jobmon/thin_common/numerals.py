"""Numbers as clients write them, for the values of both services."""

from __future__ import annotations

import re

# DATA_TYPEs of information_schema
REAL_TYPES = frozenset({"decimal", "numeric", "float", "double", "real"})

# Bounded, so that nobody can make the services or the database work on a number for long.
INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
REAL = re.compile(r"[+-]?([0-9]{1,60}(\.[0-9]{0,60})?|\.[0-9]{1,60})([eE][+-]?[0-9]{1,3})?")
