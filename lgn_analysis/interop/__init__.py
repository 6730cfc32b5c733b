"""Networks of other projects, brought here and back: difflogic, gumbel-lgn and torchlogix.

Modules are recognised by their structure; none of these projects is imported, but for the way back.
"""

from lgn_analysis.interop.export import to_torchlogix
from lgn_analysis.interop.files import Architecture, load_foreign
from lgn_analysis.interop.history import read_foreign_history
from lgn_analysis.interop.modules import convert
from lgn_analysis.interop.seeds import SeededWiring

__all__ = [
    "Architecture",
    "SeededWiring",
    "convert",
    "load_foreign",
    "read_foreign_history",
    "to_torchlogix",
]
