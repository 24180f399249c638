"""Planning: from prices and a budget to one scheme per unit. Reads no weights and needs neither torch nor the data."""

from prismaquant.planning.allocation import Allocation, Constraint, allocate
from prismaquant.planning.difference import Difference, UnitDifference, difference
from prismaquant.planning.explanation import Explanation, explain
from prismaquant.planning.frontier import Frontier, FrontierPoint, frontier
from prismaquant.planning.outlook import Outlook, Place, outlook
from prismaquant.planning.request import Request
from prismaquant.planning.run import plan, preflight

__all__ = [
    "Allocation",
    "Constraint",
    "Difference",
    "Explanation",
    "Frontier",
    "FrontierPoint",
    "Outlook",
    "Place",
    "Request",
    "UnitDifference",
    "allocate",
    "difference",
    "explain",
    "frontier",
    "outlook",
    "plan",
    "preflight",
]
