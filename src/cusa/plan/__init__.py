"""The plan of a configuration: what the rules of the workflow and `cusa check` have to make and to look at."""

from cusa.plan.lost_files import lost_features, lost_gallery_files
from cusa.plan.named_inputs import require_plain_names
from cusa.plan.plan import RESULTS, VARIANTS, Plan
from cusa.plan.search import SearchPlan
from cusa.plan.student_inputs import StudentInputsPlan
from cusa.plan.sweep import SweepPlan

__all__ = [
    "RESULTS",
    "VARIANTS",
    "Plan",
    "SearchPlan",
    "StudentInputsPlan",
    "SweepPlan",
    "lost_features",
    "lost_gallery_files",
    "require_plain_names",
]
