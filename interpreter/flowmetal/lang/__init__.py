"""The language: reader, expander, compiler, machine, values, codec, printer, core library.

Floor 0: it knows nothing of stores, engines, HTTP or Jupyter, and does no I/O.
"""

import sys

# Integers have no limit of digits (Python's has, at 4,300).
sys.set_int_max_str_digits(0)
