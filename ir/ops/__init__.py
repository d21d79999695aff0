"""Every operation, one class each, by family.  Importing this package registers them all."""

from . import contract as contract
from . import conv as conv
from . import core as core
from . import elementwise as elementwise
from . import layout as layout
from . import loop as loop
from . import pool as pool
from . import shape as shape
