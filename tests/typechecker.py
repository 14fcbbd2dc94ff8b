"""How calls are checked in the tests: an int is a float (PEP 484, the numeric tower)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
