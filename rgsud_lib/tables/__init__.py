"""The paper's tables as commands: the same trainings with the one thing changed that a table is about.

Every arm with rewards stands beside two controls at equal steps and one at equal time, all from the same stage 1.
"""

from rgsud_lib.tables.definitions import TABLES, Arm, Row, Table
from rgsud_lib.tables.run import Request, make_table

__all__ = ["TABLES", "Arm", "Request", "Row", "Table", "make_table"]
